//! One fetch, many callers: how long it lasts, and what becomes of callers it cannot serve.
