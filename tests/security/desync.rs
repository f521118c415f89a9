//! Request smuggling and response desynchronisation through the proxy.
