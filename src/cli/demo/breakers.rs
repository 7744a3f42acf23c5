//! Tells when the breaker of a webhook trips and when it lets everything pass again.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use super::account::Account;
use super::screen::Sign;
use crate::app::App;
use crate::outbound::breaker::State;
use crate::subscription::WebhookId;

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// See the module's text.
pub(super) struct Breakers<'a> {
    app: &'a App,
    account: &'a Account,
    /// Those that do not let everything pass.
    tripped: BTreeSet<WebhookId>,
}

impl<'a> Breakers<'a> {
    pub(super) fn new(app: &'a App, account: &'a Account) -> Self {
        Self {
            app,
            account,
            tripped: BTreeSet::new(),
        }
    }

    /// Looks again and again, as long as it is polled.
    pub(super) async fn watch(&mut self) -> Infallible {
        loop {
            self.look();
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn look(&mut self) {
        for webhook in self.account.ours() {
            let passes = self.app.webhook_state(&webhook) == State::Passing;
            let what = if !passes && self.tripped.insert(webhook.clone()) {
                "its breaker trips: only probes go out, what waits uses up no attempt"
            } else if passes && self.tripped.remove(&webhook) {
                "a probe was answered: its breaker lets everything pass again"
            } else {
                continue;
            };
            let text = format!("{webhook}: {what}");
            self.account.screen.line(Sign::Notice, text);
        }
    }
}
