//! Asks the system for the addresses of names, never twice at once for the same name, and never with more threads than
//! have been set apart.
//!
//! Keeps promise 4: `getaddrinfo` blocks a thread until the system gives up (often 10 to 40 s), long after the attempt
//! that asked has ended. Were each attempt to ask for itself, or each name to get a thread, the hanging names of one
//! tenant would take all threads of the runtime's pool (512), and no other webhook's name would be resolved. So attempts
//! share a lookup, and lookups have shares of threads: names that were seen to hang have a few of their own, and so have
//! those that were seen to answer. Where a share is used up a lookup waits, in the order of asking, for as long as an
//! attempt waits for it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::timeout;

use super::failure::ResolveError;

/// Threads for all names that were not seen to hang, of the 512 of a runtime.
const MOST_LOOKUPS: usize = 96;
/// Threads besides, that only names which were seen to answer in time can have.
const MOST_PROVEN_LOOKUPS: usize = 32;
/// Threads that names known to hang may take together.
const MOST_SLOW_LOOKUPS: usize = 32;
/// Names remembered as slow, and as many that were seen to answer. One more, and another is forgotten.
const MOST_REMEMBERED: usize = 4096;

type Answer = Result<Vec<SocketAddr>, (io::ErrorKind, String)>;
type Answered = watch::Sender<Option<Answer>>;
type Waiting = watch::Receiver<Option<Answer>>;
/// Blocks its thread until there is an answer.
type Ask = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The lookups of one client. Shared by its attempts; dropping it leaves running lookups to end by themselves.
pub(super) struct Names {
    lookups: Arc<Lookups>,
    /// How long an attempt waits.
    patience: Duration,
}

/// Held by [`Names`] and by each running lookup.
struct Lookups {
    ask: Arc<Ask>,
    /// From when on a lookup counts as slow, counted from when it has its thread.
    patience: Duration,
    /// Threads that are free: for all but slow names, for proven ones besides, for slow ones.
    free: Arc<Semaphore>,
    free_proven: Arc<Semaphore>,
    free_slow: Arc<Semaphore>,
    /// No lock is held across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Lookups that run or wait for a thread, by name.
    running: HashMap<String, Answered>,
    /// Names whose last lookup outlasted the patience.
    slow: Remembered,
    /// Names whose last lookup did not, whatever its answer was.
    proven: Remembered,
}

/// A bounded set of names.
#[derive(Default)]
struct Remembered(HashSet<String>);

impl Remembered {
    fn insert(&mut self, name: &str) {
        if self.0.len() >= MOST_REMEMBERED
            && !self.0.contains(name)
            && let Some(forgotten) = self.0.iter().next().cloned()
        {
            self.0.remove(&forgotten);
        }
        self.0.insert(name.to_owned());
    }
}

impl Names {
    /// Names as the system resolves them: `/etc/hosts`, `nsswitch.conf` and `resolv.conf` are honoured.
    pub(super) fn of_the_system(patience: Duration) -> Self {
        // Port 0 stands for the URL's own.
        Self::asking(patience, |name| Ok((name, 0).to_socket_addrs()?.collect()))
    }

    pub(super) fn asking(
        patience: Duration,
        ask: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        let lookups = Lookups {
            ask: Arc::new(ask),
            patience,
            free: Arc::new(Semaphore::new(MOST_LOOKUPS)),
            free_proven: Arc::new(Semaphore::new(MOST_PROVEN_LOOKUPS)),
            free_slow: Arc::new(Semaphore::new(MOST_SLOW_LOOKUPS)),
            state: Mutex::default(),
        };
        Self {
            lookups: Arc::new(lookups),
            patience,
        }
    }

    /// The addresses of a name, unchecked: the caller's guard decides which may be reached.
    pub(super) async fn look_up(&self, name: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        let timed_out = || ResolveError::TimedOut(self.patience);
        let mut waiting = self.join(name);
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

    /// Joins the running lookup of a name, or begins one.
    fn join(&self, name: &str) -> Waiting {
        let mut state = self.lookups.locked();
        if let Some(answered) = state.running.get(name) {
            return answered.subscribe();
        }
        let (answered, waiting) = watch::channel(None);
        state.running.insert(name.to_owned(), answered.clone());
        drop(state);
        let running = Running {
            lookups: Arc::clone(&self.lookups),
            name: name.to_owned(),
            is_listed: true,
        };
        tokio::spawn(running.look_up(answered));
        waiting
    }
}

impl Lookups {
    fn locked(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock, so what a poisoned one holds is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread for a name, from the share that is its own. `None` only when the semaphores are closed, which they never are.
    async fn thread_for(&self, name: &str) -> Option<OwnedSemaphorePermit> {
        let (is_slow, is_proven) = {
            let state = self.locked();
            (state.slow.0.contains(name), state.proven.0.contains(name))
        };
        let acquired = if is_slow {
            Arc::clone(&self.free_slow).acquire_owned().await
        } else if is_proven {
            tokio::select! {
                // What is set apart is taken last.
                biased;
                permit = Arc::clone(&self.free).acquire_owned() => permit,
                permit = Arc::clone(&self.free_proven).acquire_owned() => permit,
            }
        } else {
            Arc::clone(&self.free).acquire_owned().await
        };
        acquired.ok()
    }
}

/// A lookup that runs or waits for a thread. Dropping it, also by a panic or an aborted task, makes room for the next of
/// its name.
struct Running {
    lookups: Arc<Lookups>,
    name: String,
    /// Whether the entry under its name is its own.
    is_listed: bool,
}

impl Running {
    async fn look_up(mut self, answered: Answered) {
        let Some(mut permit) = self.thread(&answered).await else {
            return;
        };
        let (begins, begun) = oneshot::channel();
        let (ask, name) = (Arc::clone(&self.lookups.ask), self.name.clone());
        let mut thread = tokio::task::spawn_blocking(move || {
            let _ = begins.send(());
            ask(&name)
        });
        // The wait for a thread of the pool is no fault of the name.
        let _ = begun.await;
        let result = match timeout(self.lookups.patience, &mut thread).await {
            Ok(result) => {
                self.is_quick();
                result
            }
            Err(_) => {
                // Slow from now on, and not from when the system gives up. Where there is room its thread counts as one of
                // the slow ones', so that another name gets its turn.
                self.is_slow();
                if let Ok(slow) = Arc::clone(&self.lookups.free_slow).try_acquire_owned() {
                    permit = slow;
                }
                thread.await
            }
        };
        drop(permit);
        let answer = result
            .unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
            .map_err(|error| (error.kind(), error.to_string()));
        // Ended before it is answered: whoever asks from now on gets a new lookup, never an old answer.
        drop(self);
        let _ = answered.send(Some(answer));
    }

    /// Waits for a thread, as long as an attempt waits for the answer.
    async fn thread(&mut self, answered: &Answered) -> Option<OwnedSemaphorePermit> {
        let lookups = Arc::clone(&self.lookups);
        let mut thread = std::pin::pin!(lookups.thread_for(&self.name));
        loop {
            tokio::select! {
                biased;
                permit = &mut thread => return permit,
                () = answered.closed() => {
                    let mut state = lookups.locked();
                    // Under the lock nobody joins; who joined a moment ago is waited for.
                    if answered.receiver_count() == 0 {
                        state.running.remove(&self.name);
                        self.is_listed = false;
                        return None;
                    }
                }
            }
        }
    }

    fn is_quick(&self) {
        let mut state = self.lookups.locked();
        state.slow.0.remove(&self.name);
        state.proven.insert(&self.name);
    }

    fn is_slow(&self) {
        let mut state = self.lookups.locked();
        state.proven.0.remove(&self.name);
        state.slow.insert(&self.name);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_listed {
            self.lookups.locked().running.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests;
