//! What `Cache-Status` says of a response.
