//! What an administrator of the cluster does: users of SCRAM, and rights. rdkafka wraps neither.

use std::ffi::{CString, c_char};
use std::ptr::null_mut;

use rdkafka::admin::AdminClient;
use rdkafka::bindings as native;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::types::RDKafkaRespErr as Code;

pub use native::rd_kafka_AclOperation_t as Operation;

/// One right, of any principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    pub operation: Operation,
    /// `topic` or `group`.
    pub kind: &'static str,
    pub name: String,
}

pub struct Admin(AdminClient<DefaultClientContext>);

impl Admin {
    pub fn at(bootstrap: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap);
        Self(config.create().unwrap())
    }

    pub fn add_user(&self, user: &str, password: &str) {
        let user = CString::new(user).unwrap();
        unsafe {
            let rk = self.0.inner().native_ptr();
            let mut alteration = native::rd_kafka_UserScramCredentialUpsertion_new(
                user.as_ptr(),
                native::rd_kafka_ScramMechanism_t::RD_KAFKA_SCRAM_MECHANISM_SHA_512,
                4096,
                password.as_ptr(),
                password.len(),
                b"0123456789abcdef".as_ptr(),
                16,
            );
            let queue = native::rd_kafka_queue_new(rk);
            native::rd_kafka_AlterUserScramCredentials(
                rk,
                &raw mut alteration,
                1,
                std::ptr::null(),
                queue,
            );
            wait(queue);
            native::rd_kafka_UserScramCredentialAlteration_destroy(alteration);
        }
    }

    /// Grants rights to a principal such as `User:a`; the names are literal.
    pub fn grant(&self, principal: &str, rights: &[Right]) {
        let principal = CString::new(principal).unwrap();
        let host = CString::new("*").unwrap();
        let mut text: [c_char; 512] = [0; 512];
        unsafe {
            let rk = self.0.inner().native_ptr();
            let mut bindings: Vec<_> = rights
                .iter()
                .map(|right| {
                    let name = CString::new(right.name.as_str()).unwrap();
                    native::rd_kafka_AclBinding_new(
                        match right.kind {
                            "topic" => native::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC,
                            "group" => native::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_GROUP,
                            other => panic!("{other}"),
                        },
                        name.as_ptr(),
                        native::rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_LITERAL,
                        principal.as_ptr(),
                        host.as_ptr(),
                        right.operation,
                        native::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW,
                        text.as_mut_ptr(),
                        text.len(),
                    )
                })
                .collect();
            assert!(bindings.iter().all(|binding| !binding.is_null()));
            let queue = native::rd_kafka_queue_new(rk);
            native::rd_kafka_CreateAcls(
                rk,
                bindings.as_mut_ptr(),
                bindings.len(),
                std::ptr::null(),
                queue,
            );
            wait(queue);
            for binding in bindings {
                native::rd_kafka_AclBinding_destroy(binding);
            }
        }
    }
}

unsafe fn wait(queue: *mut native::rd_kafka_queue_t) {
    unsafe {
        let event = native::rd_kafka_queue_poll(queue, 30_000);
        assert_ne!(event, null_mut(), "the broker does not answer");
        assert_eq!(
            native::rd_kafka_event_error(event),
            Code::RD_KAFKA_RESP_ERR_NO_ERROR
        );
        native::rd_kafka_event_destroy(event);
        native::rd_kafka_queue_destroy(queue);
    }
}
