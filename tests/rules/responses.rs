//! What a rule removes from responses before they are stored.
