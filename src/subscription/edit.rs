//! What is to become of a stored webhook, and what became of it: the words that the API and the catalog topic share.

use std::sync::Arc;

use super::Subscription;

/// What somebody wants with a webhook, having seen how it stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// Store this.
    Put(Box<Subscription>),
    /// Delete it.
    Delete,
    /// Nothing differs.
    Keep,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct Edited {
    /// What was stored before; `None` for a new webhook.
    pub before: Option<Arc<Subscription>>,
    /// What is stored now; `None` for a deleted one.
    pub after: Option<Arc<Subscription>>,
}
