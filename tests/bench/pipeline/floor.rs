//! The floor: the least that any carrier from Kafka to HTTP does. Consume, sign once, POST, 64 in flight; no ledger, no
//! retries, no second topic, no promise. What the router costs beside it is the price of its promises.

use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::Message;
use sha2::Sha256;
use tokio::sync::Semaphore;

pub const IN_FLIGHT: usize = 64;

/// What the child is told; the order of its arguments.
pub struct Floor {
    pub bootstrap: String,
    pub topic: String,
    pub group: String,
    pub url: String,
    pub threads: usize,
}

impl Floor {
    pub fn arguments(&self) -> Vec<String> {
        vec![
            "floor".to_owned(),
            self.bootstrap.clone(),
            self.topic.clone(),
            self.group.clone(),
            self.url.clone(),
            self.threads.to_string(),
        ]
    }

    pub fn of_arguments(arguments: &[String]) -> Self {
        let at = |index: usize| arguments[index].clone();
        Self {
            bootstrap: at(0),
            topic: at(1),
            group: at(2),
            url: at(3),
            threads: at(4).parse().expect("a number of threads"),
        }
    }

    /// The child's main: until it is killed.
    pub fn run(self) {
        let mut builder = if self.threads == 1 {
            tokio::runtime::Builder::new_current_thread()
        } else {
            tokio::runtime::Builder::new_multi_thread()
        };
        if self.threads > 1 {
            builder.worker_threads(self.threads);
        }
        let runtime = builder.enable_all().build().expect("a runtime");
        // Spawned, so that it runs on the runtime's own threads.
        let work = runtime.spawn(self.carry());
        runtime.block_on(work).expect("the loop goes on");
    }

    async fn carry(self) {
        let consumer: StreamConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", &self.group)
            .set("auto.offset.reset", "earliest")
            .create()
            .expect("a consumer");
        consumer.subscribe(&[&self.topic]).expect("a subscription");
        // reqwest wants one even for plain http.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(Duration::from_secs(10))
            .pool_max_idle_per_host(IN_FLIGHT)
            .tcp_nodelay(true)
            .build()
            .expect("a client");
        let key = Hmac::<Sha256>::new_from_slice(b"benchmark").expect("a key");
        let url: reqwest::Url = self.url.parse().expect("a URL");
        let permits = Arc::new(Semaphore::new(IN_FLIGHT));
        loop {
            let Ok(message) = consumer.recv().await else {
                continue;
            };
            let body = bytes::Bytes::copy_from_slice(message.payload().unwrap_or_default());
            drop(message);
            let permit = Arc::clone(&permits)
                .acquire_owned()
                .await
                .expect("never closed");
            let (client, key, url) = (client.clone(), key.clone(), url.clone());
            tokio::spawn(async move {
                let mut state = key;
                state.update(&body);
                let mut signature = String::with_capacity(71);
                signature.push_str("sha256=");
                for byte in state.finalize().into_bytes() {
                    for digit in [byte >> 4, byte & 15] {
                        signature.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
                    }
                }
                let answer = client
                    .post(url)
                    .header("content-type", "application/json")
                    .header("x-webhook-signature", signature)
                    .body(body)
                    .send()
                    .await;
                if let Ok(mut answer) = answer {
                    while let Ok(Some(_)) = answer.chunk().await {}
                }
                drop(permit);
            });
        }
    }
}
