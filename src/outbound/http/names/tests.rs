//! Holds lookups to sharing: one hanging name costs one thread, whatever number of attempts ask for it.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const PATIENCE: Duration = Duration::from_millis(50);
const HANG: Duration = Duration::from_millis(300);

/// Names that begin with `hang` keep a real thread of the blocking pool, as `getaddrinfo` does.
fn names(asked: &Arc<AtomicUsize>) -> Names {
    let asked = Arc::clone(asked);
    Names::asking(PATIENCE, move |name| {
        asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let blocked = tokio::task::spawn_blocking(move || {
                if name.starts_with("hang") {
                    std::thread::sleep(HANG);
                }
                Ok(vec![SocketAddr::from(([192, 0, 2, 1], 0))])
            });
            blocked.await.expect("the lookup does not panic")
        })
    })
}

#[test]
fn a_hanging_name_takes_one_thread_and_leaves_the_others_to_other_names() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .expect("a runtime");
    let asked = Arc::new(AtomicUsize::new(0));
    let names = names(&asked);
    runtime.block_on(async {
        let many = (0..100).map(|_| names.look_up("hang.example"));
        let outcomes = futures_util::future::join_all(many).await;
        assert_eq!(outcomes.len(), 100);
        for outcome in outcomes {
            assert!(matches!(outcome, Err(ResolveError::TimedOut(_))));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let healthy = names.look_up("good.example").await;
        assert_eq!(healthy.expect("an answer").len(), 1);
    });
}

#[tokio::test]
async fn names_known_to_hang_share_a_few_threads_and_a_new_name_is_not_refused() {
    let asked = Arc::new(AtomicUsize::new(0));
    let names = names(&asked);
    let all: Vec<String> = (0..MOST_SLOW_LOOKUPS + 8)
        .map(|number| format!("hang-{number}.example"))
        .collect();
    futures_util::future::join_all(all.iter().map(|name| names.look_up(name))).await;
    tokio::time::sleep(HANG * 3).await;
    assert_eq!(asked.swap(0, Ordering::SeqCst), MOST_SLOW_LOOKUPS + 8);
    futures_util::future::join_all(all.iter().map(|name| names.look_up(name))).await;
    assert_eq!(asked.load(Ordering::SeqCst), MOST_SLOW_LOOKUPS);
    assert!(names.look_up("good.example").await.is_ok());
}

#[tokio::test]
async fn a_later_attempt_asks_again_so_a_changed_address_is_seen() {
    let asked = Arc::new(AtomicUsize::new(0));
    let names = names(&asked);
    for _ in 0..3 {
        assert!(names.look_up("good.example").await.is_ok());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    assert!(locked(&names.state).running.is_empty());
}
