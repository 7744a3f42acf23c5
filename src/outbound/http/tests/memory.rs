//! What hostile receivers send is not kept: fifty of a kind at once cost no more than fifty read buffers, and nothing stays.

use super::*;

const ATTEMPTS: usize = 50;
/// At once, for all attempts together: a read buffer of hyper is 408 KiB at most, and may be there twice while it grows. Each
/// receiver would have sent 50 to 100 times as much, or without end.
const MOST_AT_ONCE: usize = 48 << 20;
/// Kept when all is over, by four times as many attempts: the allocator's own.
const MOST_KEPT: usize = 24 << 20;

/// A line of `/proc/self/status`, in bytes.
fn memory(line: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let found = status.lines().find_map(|each| each.strip_prefix(line));
    let kilobytes = found.unwrap().trim_start_matches(':').trim();
    kilobytes.trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// Kept for ever, so that the receivers' own memory is there before anything is measured.
fn leaked(bytes: Vec<u8>) -> &'static [u8] {
    bytes.leak()
}

#[tokio::test]
async fn what_hostile_receivers_send_is_not_kept() {
    // Memory belongs to the whole process, so the test runs itself in one of its own.
    if std::env::var_os("POSTRIDER_TEST_ALONE").is_none() {
        let name = "outbound::http::tests::memory::what_hostile_receivers_send_is_not_kept";
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.env("POSTRIDER_TEST_ALONE", "1");
        let output = again
            .args(["--exact", name, "--nocapture"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}{errors}"
        );
        return;
    }
    let ok = "HTTP/1.1 200 OK\r\n";
    let piece = leaked(vec![0; 65_536]);
    let kinds: [(&str, &'static [u8], bool, Outcome); 4] = [
        (
            "an endless body",
            leaked(format!("{ok}\r\n").into()),
            true,
            Outcome::Success,
        ),
        (
            "a gzip bomb",
            leaked(format!("{ok}content-encoding: gzip\r\n\r\n").into()),
            true,
            Outcome::Success,
        ),
        (
            "a header of 1 MB",
            leaked(format!("{ok}a: {}\r\n\r\n", "b".repeat(1 << 20)).into()),
            false,
            Outcome::Protocol,
        ),
        (
            "100,000 headers",
            leaked(format!("{ok}{}\r\n", "a: b\r\n".repeat(100_000)).into()),
            false,
            Outcome::Protocol,
        ),
    ];
    let client = client();
    let before = memory("VmRSS");
    for (name, head, goes_on, outcome) in kinds {
        let receiver = Receiver::new(move |mut stream| async move {
            let _ = read_request(&mut stream).await;
            let _ = stream.write_all(head).await;
            while goes_on && stream.write_all(piece).await.is_ok() {}
        })
        .await;
        // Makes VmHWM, the highest VmRSS there was, what is there now.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let start = memory("VmRSS");
        let url = receiver.url();
        let attempts = (0..ATTEMPTS).map(|_| attempt(&client, &url, Duration::from_secs(60)));
        for sent in futures_util::future::join_all(attempts).await {
            assert_eq!(sent.verdict(0).outcome, outcome, "{name}: {sent:?}");
        }
        let grown = memory("VmHWM").saturating_sub(start);
        println!("{name}: {} KiB at once", grown >> 10);
        assert!(grown < MOST_AT_ONCE, "{name}: {grown} bytes at once");
    }
    let kept = memory("VmRSS").saturating_sub(before);
    println!("{} KiB kept", kept >> 10);
    assert!(kept < MOST_KEPT, "{kept} bytes are kept");
}
