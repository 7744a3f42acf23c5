//! Holds lookups to sharing: one hanging name costs one thread, and any number of them a bounded number of threads.

use std::sync::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;

use super::*;

/// For names that hang.
const PATIENCE: Duration = Duration::from_millis(300);
/// For names that answer: nothing here takes as long, even on a busy machine.
const LONG: Duration = Duration::from_secs(30);

/// A resolver of names that begin with `hang` until the gate is opened, each on a real thread of the blocking pool, as
/// `getaddrinfo` does.
#[derive(Default)]
struct Resolver {
    asked: AtomicUsize,
    hanging: AtomicUsize,
    most_hanging: AtomicUsize,
    open: Mutex<bool>,
    opened: Condvar,
}

impl Resolver {
    fn names(self: &Arc<Self>, patience: Duration) -> Names {
        let resolver = Arc::clone(self);
        Names::asking(patience, move |name| {
            resolver.asked.fetch_add(1, Ordering::SeqCst);
            if name.starts_with("hang") {
                let hanging = resolver.hanging.fetch_add(1, Ordering::SeqCst) + 1;
                resolver.most_hanging.fetch_max(hanging, Ordering::SeqCst);
                let closed = resolver.open.lock().unwrap();
                let opened = resolver.opened.wait_while(closed, |open| !*open);
                drop(opened.unwrap());
                resolver.hanging.fetch_sub(1, Ordering::SeqCst);
            }
            Ok(vec![SocketAddr::from(([192, 0, 2, 1], 0))])
        })
    }

    /// Lets the hanging lookups answer, late.
    fn open(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Opens the gate when it is dropped: a runtime waits for the threads of its pool, also when a test fails.
struct Opens(Arc<Resolver>);

impl Opens {
    fn new() -> Self {
        Self(Arc::default())
    }
}

impl std::ops::Deref for Opens {
    type Target = Arc<Resolver>;

    fn deref(&self) -> &Arc<Resolver> {
        &self.0
    }
}

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.open();
    }
}

fn hanging(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers
        .map(|number| format!("hang-{number}.example"))
        .collect()
}

async fn nobody_is_answered(names: &Names, hanging: &[String]) {
    for outcome in join_all(hanging.iter().map(|name| names.look_up(name))).await {
        assert!(
            matches!(outcome, Err(ResolveError::TimedOut(_))),
            "{outcome:?}"
        );
    }
}

async fn until(what: impl Fn() -> bool) {
    timeout(LONG, async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it never came about");
}

#[test]
fn a_hanging_name_takes_one_thread_and_leaves_the_others_to_other_names() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .unwrap();
    let resolver = Opens::new();
    let names = resolver.names(PATIENCE);
    runtime.block_on(async {
        nobody_is_answered(&names, &vec!["hang.example".to_owned(); 100]).await;
        assert_eq!(resolver.asked(), 1);
        let healthy = names.look_up("good.example").await;
        assert_eq!(healthy.unwrap().len(), 1);
        resolver.open();
    });
}

#[tokio::test]
async fn six_hundred_hanging_names_leave_threads_to_a_proven_name_and_after_their_time_to_a_new_one()
 {
    let resolver = Opens::new();
    let names = resolver.names(Duration::from_secs(2));
    assert!(names.look_up("proven.example").await.is_ok());
    let all = hanging(0..600);
    let meanwhile = async {
        until(|| resolver.hanging.load(Ordering::SeqCst) == MOST_LOOKUPS).await;
        assert!(names.look_up("proven.example").await.is_ok());
    };
    tokio::join!(nobody_is_answered(&names, &all), meanwhile);
    assert!(names.look_up("new.example").await.is_ok());
    assert!(names.look_up("proven.example").await.is_ok());
    // They come again and again, and the threads stay as many.
    nobody_is_answered(&names, &all).await;
    let most = resolver.most_hanging.load(Ordering::SeqCst);
    assert!(
        most <= MOST_LOOKUPS + MOST_SLOW_LOOKUPS,
        "{most} threads were taken"
    );
    assert!(names.look_up("proven.example").await.is_ok());
    resolver.open();
    until(|| names.lookups.locked().running.is_empty()).await;
}

#[tokio::test]
async fn names_known_to_hang_share_a_few_threads_and_take_turns() {
    let resolver = Opens::new();
    let names = resolver.names(PATIENCE);
    let all = hanging(0..MOST_SLOW_LOOKUPS + 8);
    nobody_is_answered(&names, &all).await;
    assert_eq!(resolver.asked(), MOST_SLOW_LOOKUPS + 8);
    // Known while they hang, not only when the system has given up.
    until(|| names.lookups.locked().slow.0.len() == all.len()).await;
    resolver.open();
    until(|| names.lookups.locked().running.is_empty()).await;

    *resolver.open.lock().unwrap() = false;
    nobody_is_answered(&names, &all).await;
    assert_eq!(resolver.asked(), 2 * MOST_SLOW_LOOKUPS + 8);
    assert!(names.look_up("good.example").await.is_ok());
    // Those that had no turn are forgotten as soon as nobody waits for them.
    until(|| names.lookups.locked().running.len() == MOST_SLOW_LOOKUPS).await;
    resolver.open();
    until(|| names.lookups.locked().running.is_empty()).await;
    // Now they answer in time, so they are slow no more.
    for name in &all {
        assert!(names.look_up(name).await.is_ok());
    }
    assert!(names.lookups.locked().slow.0.is_empty());
}

#[tokio::test]
async fn a_lookup_that_waits_for_a_thread_is_made_when_one_is_free() {
    let resolver = Opens::new();
    let names = resolver.names(LONG);
    let many = hanging(0..MOST_LOOKUPS);
    let crowd = join_all(many.iter().map(|name| names.look_up(name)));
    let late = async {
        until(|| resolver.asked() == MOST_LOOKUPS).await;
        let new = names.look_up("new.example");
        let opens = async {
            until(|| names.lookups.locked().running.len() == MOST_LOOKUPS + 1).await;
            assert_eq!(resolver.asked(), MOST_LOOKUPS);
            resolver.open();
        };
        tokio::join!(new, opens).0
    };
    let (crowd, late) = tokio::join!(crowd, late);
    assert!(late.is_ok() && crowd.iter().all(Result::is_ok));
}

#[test]
fn the_wait_for_a_thread_of_the_pool_makes_no_name_slow() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    let resolver = Opens::new();
    let names = resolver.names(PATIENCE);
    runtime.block_on(async {
        nobody_is_answered(
            &names,
            &["hang.example".to_owned(), "good.example".to_owned()],
        )
        .await;
        until(|| names.lookups.locked().slow.0.contains("hang.example")).await;
        resolver.open();
        until(|| names.lookups.locked().running.is_empty()).await;
        let state = names.lookups.locked();
        assert!(state.slow.0.contains("hang.example"));
        assert!(state.proven.0.contains("good.example"));
    });
}

#[tokio::test]
async fn a_later_attempt_asks_again_so_a_changed_address_is_seen() {
    let resolver = Opens::new();
    let names = resolver.names(LONG);
    for _ in 0..3 {
        assert!(names.look_up("good.example").await.is_ok());
    }
    assert_eq!(resolver.asked(), 3);
    assert!(names.lookups.locked().running.is_empty());
}

#[test]
fn only_so_many_names_are_remembered_and_the_newest_is_among_them() {
    let mut remembered = Remembered::default();
    for number in 0..MOST_REMEMBERED * 2 {
        let name = format!("{number}.example");
        remembered.insert(&name);
        remembered.insert(&name);
        assert!(remembered.0.contains(&name));
    }
    assert_eq!(remembered.0.len(), MOST_REMEMBERED);
}
