//! The names of headers, checked and brought into the client's form once.

use async_nats::header::HeaderName;

/// A header's name. The client checks and copies a name that it is given as text, each time.
pub(crate) struct Header {
    pub(crate) text: &'static str,
    name: HeaderName,
}

impl Header {
    pub(crate) const fn new(text: &'static str) -> Self {
        Self { text, name: HeaderName::from_static(text) }
    }

    pub(crate) fn name(&self) -> HeaderName {
        self.name.clone()
    }
}
