//! Rules by which the body of a request is in its key.
