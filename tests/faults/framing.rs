//! Message framing: declared lengths, transfer codings, connections.
