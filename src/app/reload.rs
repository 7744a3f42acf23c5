//! What a running instance takes over of a changed configuration; `config::Config::adopt` names the keys.
//!
//! Nothing is stopped or given back for it: limits hold for what comes next (promise 6 from then on by the new figures).

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::{App, stages};
use crate::config::Config;

impl App {
    /// Takes over limits and tokens. The rest of the configuration is not looked at.
    pub fn reload(&self, config: &Config) {
        if let Some(outbound) = &self.outbound {
            outbound.limit(stages::limits(config));
        }
        self.budget.bound(config.outbound.memory_bytes);
        let ways = &self.inside.ways;
        ways.paces.store(Arc::new(stages::paces(config)));
        ways.conditions
            .hold_after(Duration::from_secs(config.retry.hold_after_seconds));
        self.tokens.store(Arc::new(config.web.tokens.clone()));
        if self.api.is_none() && config.web.listen.is_some() && !config.web.tokens.is_empty() {
            warn!(
                "the API is not served, because there was no token at the start; restart to serve it"
            );
        }
    }
}
