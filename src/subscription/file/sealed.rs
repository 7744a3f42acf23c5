//! An export with secrets: each entry's are encrypted with a key that was given, as the member `sealed`, beside the masked fields (promise 7).
//! Reading puts them back where a field still says "as stored"; a field that was written anew stays.

use serde::Serialize;
use serde_json::{Map, Value};

use super::super::read::pointer;
use super::super::seal::{self, SealError, Sealed, SealingKey, Secrets};
use super::super::{FieldError, MASK, Subscription, View, WebhookId};
use super::{WriteError, escaped};

/// The member that holds them.
const SEALED: &str = "sealed";

/// As [`super::write`], with the secrets of each webhook encrypted with this key.
///
/// # Errors
/// A webhook could not be encrypted, or the YAML writer failed.
pub fn write_sealed<'a>(
    webhooks: impl IntoIterator<Item = &'a Subscription>,
    key: &SealingKey,
) -> Result<String, WriteError> {
    #[derive(Serialize)]
    struct Entry {
        #[serde(flatten)]
        view: View,
        #[serde(skip_serializing_if = "Option::is_none")]
        sealed: Option<Sealed>,
    }
    #[derive(Serialize)]
    struct File {
        webhooks: Vec<Entry>,
    }
    let entries = webhooks.into_iter().map(|webhook| {
        Ok(Entry {
            view: escaped(webhook),
            sealed: seal::secrets_of(webhook, Some(key))?,
        })
    });
    let webhooks = entries.collect::<Result<_, SealError>>()?;
    Ok(serde_saphyr::to_string(&File { webhooks })?)
}

/// Opens what is sealed in a document, and puts it into the fields.
pub(super) fn open(document: &mut Value, key: Option<&SealingKey>, errors: &mut Vec<FieldError>) {
    let Some(Value::Array(list)) = document.get_mut("webhooks") else {
        return;
    };
    for (position, entry) in list.iter_mut().enumerate() {
        let Some(entry) = entry.as_object_mut() else {
            continue;
        };
        let Some(sealed) = entry.remove(SEALED) else {
            continue;
        };
        match opened(entry, sealed, key) {
            Ok(secrets) => put(entry, secrets),
            Err(message) => errors.push(FieldError {
                pointer: pointer(&format!("/webhooks/{position}"), SEALED),
                message,
            }),
        }
    }
}

fn opened(
    entry: &Map<String, Value>,
    sealed: Value,
    key: Option<&SealingKey>,
) -> Result<Secrets, String> {
    let id = entry.get("id").and_then(Value::as_str);
    let id = id.and_then(|id| WebhookId::new(id).ok());
    let id =
        id.ok_or("`sealed` belongs to the `id` that it was exported with; write that id too")?;
    let sealed: Sealed = serde_json::from_value(sealed).map_err(|_| {
        "`sealed` must have the members key_id, nonce and ciphertext, as `export --with-secrets` wrote them"
    })?;
    seal::open(&sealed, id.as_str(), &id, key).map_err(|fault| match fault {
        SealError::Tampered { .. } => format!(
            "what is sealed was changed, or belongs to another webhook than {id}; export it again, or write the secrets themselves"
        ),
        SealError::NoKeyToOpen { key_id, .. } => format!(
            "it is encrypted with the key {key_id}, and there is no key; put that one into secrets.key or secrets.old_keys"
        ),
        SealError::WrongKey { wanted, given, .. } => format!(
            "it is encrypted with the key {wanted}, and here is {given}; put that one into secrets.old_keys for this command"
        ),
        other => other.to_string(),
    })
}

/// Only where a field says "as stored", or is absent.
fn put(entry: &mut Map<String, Value>, secrets: Secrets) {
    let Secrets {
        headers,
        cookies,
        auth,
        secrets,
    } = secrets;
    for (name, stored) in [("headers", headers), ("cookies", cookies)] {
        if let Some(Value::Object(members)) = entry.get_mut(name) {
            for (name, value) in members {
                if let (true, Some(stored)) = (value == MASK, stored.get(name)) {
                    *value = stored.as_str().into();
                }
            }
        }
    }
    if let (Some(Value::Object(members)), Ok(Value::Object(stored))) =
        (entry.get_mut("auth"), serde_json::to_value(&auth))
        && members.get("type") == stored.get("type")
    {
        for (name, value) in members {
            if let (true, Some(stored)) = (value == MASK, stored.get(name)) {
                *value = stored.clone();
            }
        }
    }
    if let Some(secret) = secrets.into_iter().next()
        && entry.get("secret").is_none_or(|found| found == MASK)
    {
        entry.insert("secret".to_owned(), secret.into());
    }
}
