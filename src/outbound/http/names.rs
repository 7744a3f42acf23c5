//! Asks the system for the addresses of names, never twice at once for the same name.
//!
//! Keeps promise 4: `getaddrinfo` blocks a thread until the system gives up (often 10 to 40 s), long after the attempt
//! that asked has ended. Were each attempt to ask for itself, the retries to one hanging name would take all threads
//! of the runtime's pool (512), and no other webhook's name would be resolved. So attempts share a lookup, and names
//! that were seen to hang share a few threads.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::failure::ResolveError;

/// Threads that names known to hang may take together, of the 512 of a runtime.
const MOST_SLOW_LOOKUPS: usize = 32;
/// Names remembered as slow. Beyond them a name is treated as a new one.
const MOST_SLOW_NAMES: usize = 4096;

type Answer = Result<Vec<SocketAddr>, (io::ErrorKind, String)>;
type Waiting = watch::Receiver<Option<Answer>>;
type Ask = Box<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The lookups of one client. Shared by its attempts; dropping it leaves running lookups to end by themselves.
pub(super) struct Names {
    ask: Ask,
    /// How long an attempt waits, and from when on a name counts as slow.
    patience: Duration,
    state: Arc<Mutex<State>>,
}

/// Held by [`Names`] and by each running lookup; no lock is held across an await.
#[derive(Default)]
struct State {
    running: HashMap<String, Waiting>,
    /// Names whose last lookup outlasted the patience.
    slow: HashSet<String>,
    /// Running lookups of names that were slow when they began.
    slow_running: usize,
}

impl Names {
    /// Names as the system resolves them: `/etc/hosts`, `nsswitch.conf` and `resolv.conf` are honoured.
    pub(super) fn of_the_system(patience: Duration) -> Self {
        Self::asking(patience, |name| {
            Box::pin(async move {
                // Port 0 stands for the URL's own.
                let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
                Ok(found.collect())
            })
        })
    }

    fn asking(
        patience: Duration,
        ask: impl Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            ask: Box::new(ask),
            patience,
            state: Arc::default(),
        }
    }

    /// The addresses of a name, unchecked: the caller's guard decides which may be reached.
    pub(super) async fn look_up(&self, name: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        let timed_out = || ResolveError::TimedOut(self.patience);
        let mut waiting = self.join(name).ok_or_else(timed_out)?;
        let answered = timeout(self.patience, waiting.wait_for(Option::is_some)).await;
        match answered.map_err(|_| timed_out())? {
            Ok(answer) => match &*answer {
                Some(Ok(found)) => Ok(found.clone()),
                Some(Err((kind, text))) => {
                    Err(ResolveError::Failed(io::Error::new(*kind, text.clone())))
                }
                None => Err(timed_out()),
            },
            // The lookup ended without an answer: its runtime is going away.
            Err(_) => Err(timed_out()),
        }
    }

    /// Joins the running lookup of a name, or begins one. `None` where the name is known to hang and too many such
    /// lookups run already.
    fn join(&self, name: &str) -> Option<Waiting> {
        let mut state = locked(&self.state);
        if let Some(waiting) = state.running.get(name) {
            return Some(waiting.clone());
        }
        let was_slow = state.slow.contains(name);
        if was_slow {
            if state.slow_running >= MOST_SLOW_LOOKUPS {
                return None;
            }
            state.slow_running += 1;
        }
        let (answered, waiting) = watch::channel(None);
        state.running.insert(name.to_owned(), waiting.clone());
        drop(state);
        let running = Running {
            state: Arc::clone(&self.state),
            name: name.to_owned(),
            was_slow,
            began: Instant::now(),
            patience: self.patience,
        };
        let asked = (self.ask)(name.to_owned());
        tokio::spawn(async move {
            let answer = asked
                .await
                .map_err(|error| (error.kind(), error.to_string()));
            // Ended before it is answered: whoever asks from now on gets a new lookup, never an old answer.
            drop(running);
            let _ = answered.send(Some(answer));
        });
        Some(waiting)
    }
}

/// A lookup that runs. Dropping it, also by a panic or an aborted task, makes room for the next of its name.
struct Running {
    state: Arc<Mutex<State>>,
    name: String,
    was_slow: bool,
    began: Instant,
    patience: Duration,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = locked(&self.state);
        state.running.remove(&self.name);
        if self.was_slow {
            state.slow_running = state.slow_running.saturating_sub(1);
        }
        if self.began.elapsed() < self.patience {
            state.slow.remove(&self.name);
        } else if state.slow.len() < MOST_SLOW_NAMES {
            state.slow.insert(std::mem::take(&mut self.name));
        }
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // No code that can panic runs under the lock, so what a poisoned one holds is whole.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
