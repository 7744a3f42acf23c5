//! A file of webhooks, YAML or JSON: one document with the list `webhooks:`. Nothing is returned unless all of it is
//! valid, and every fault names file, line, column and field.
//!
//! `${NAME}` in any text is replaced from the environment, so that secrets need not stand in the file; `$${` stands for
//! `${`. Other members of the document must begin with `x-`: there YAML anchors can be kept for use in several webhooks.

mod located;
mod sealed;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::read::{pointer, read, unknown};
use super::seal::{SealError, SealingKey};
use super::{Draft, FieldError, Subscription, View, WebhookId};
use located::{Document, Place};
pub use sealed::write_sealed;

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The secrets of a webhook cannot be encrypted.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// The YAML writer failed.
    #[error("the webhooks cannot be written as YAML: {0}")]
    Yaml(#[from] serde_saphyr::SerializeError),
}

/// A fault in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileError {
    /// The file's name as it was given.
    pub file: String,
    /// Counted from 1.
    pub line: u64,
    /// Counted from 1, in characters.
    pub column: u64,
    /// JSON pointer (RFC 6901) to the field; empty for the document as a whole.
    pub pointer: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.pointer.is_empty() {
            write!(formatter, "{}: ", self.pointer)?;
        }
        formatter.write_str(&self.message)
    }
}

/// A file that was read and may still be refused: whoever knows more than the nouns (filters, addresses, what is stored) adds
/// faults with [`Reading::refuse`], so that all of them are told at once and with their lines.
pub struct Reading {
    file: String,
    document: Document,
    drafts: Vec<Draft>,
    errors: Vec<FieldError>,
}

impl Reading {
    /// Reads the text of a file; `file` is its name for messages, `environment` answers for `${NAME}`, `key` opens what an export
    /// sealed.
    ///
    /// # Errors
    /// The text is neither YAML nor JSON. Other faults are kept for [`Reading::finish`].
    pub fn of(
        file: &str,
        text: &str,
        environment: &dyn Fn(&str) -> Option<String>,
        key: Option<&SealingKey>,
    ) -> Result<Self, FileError> {
        let mut document = Document::parse(text).map_err(|error| unreadable(file, &error))?;
        let mut errors = Vec::new();
        replace_variables(&mut document.value, "", environment, &mut errors);
        // After the variables: what is sealed is meant as it is.
        sealed::open(&mut document.value, key, &mut errors);
        let drafts = entries(&document.value, &mut errors);
        Ok(Self {
            file: file.to_owned(),
            document,
            drafts,
            errors,
        })
    }

    /// The entries without fault so far, in the order of the file.
    pub fn drafts(&self) -> &[Draft] {
        &self.drafts
    }

    /// A text of the document as it was written, with its variables replaced.
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.document.value.pointer(pointer)?.as_str()
    }

    /// Adds a fault, unless that field has one.
    pub fn refuse(&mut self, error: FieldError) {
        let is_same = |known: &FieldError| known.pointer == error.pointer;
        if !self.errors.iter().any(is_same) {
            self.errors.push(error);
        }
    }

    /// Every fault, in the order of the file; empty when there is none.
    pub fn faults(&self) -> Vec<FileError> {
        let mut errors: Vec<FileError> = self
            .errors
            .iter()
            .map(|error| {
                let place = self.document.place(&error.pointer);
                FileError {
                    file: self.file.clone(),
                    line: place.line,
                    column: place.column,
                    pointer: error.pointer.clone(),
                    message: error.message.clone(),
                }
            })
            .collect();
        errors.sort_by_key(|error| (error.line, error.column));
        errors
    }

    /// The drafts.
    ///
    /// # Errors
    /// [`Reading::faults`]; never an empty list.
    pub fn finish(self) -> Result<Vec<Draft>, Vec<FileError>> {
        let faults = self.faults();
        if faults.is_empty() {
            Ok(self.drafts)
        } else {
            Err(faults)
        }
    }
}

/// Reads the text of a file; `file` is its name for messages, `environment` answers for `${NAME}`.
///
/// An entry without an `id` gets one from its customer and name ([`WebhookId::derived`]), so that applying a file twice
/// changes nothing; such an entry needs a name.
///
/// # Errors
/// Every fault that was found, in the order of the file; never an empty list.
pub fn load(
    file: &str,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Draft>, Vec<FileError>> {
    Reading::of(file, text, environment, None)
        .map_err(|fault| vec![fault])?
        .finish()
}

fn unreadable(file: &str, error: &serde_saphyr::Error) -> FileError {
    let place = error
        .location()
        .map_or(Place { line: 1, column: 1 }, Place::from);
    // The formatter for users names no Rust options; without the snippet, whose line may hold a secret.
    let message = error
        .without_snippet()
        .render_with_options(serde_saphyr::render_options! {
            formatter: &serde_saphyr::UserMessageFormatter,
            snippets: serde_saphyr::SnippetMode::Off,
        });
    // The place is said once, at the beginning.
    let message = message.split(" at line ").next().unwrap_or_default();
    FileError {
        file: file.to_owned(),
        line: place.line,
        column: place.column,
        pointer: String::new(),
        message: format!("cannot be read: {message}"),
    }
}

fn entries(value: &Value, errors: &mut Vec<FieldError>) -> Vec<Draft> {
    let mut fail = |pointer: &str, message: String| {
        errors.push(FieldError {
            pointer: pointer.to_owned(),
            message,
        })
    };
    let Some(object) = value.as_object() else {
        fail(
            "",
            "the file must be one document with a list `webhooks:`".to_owned(),
        );
        return Vec::new();
    };
    for name in object
        .keys()
        .filter(|name| *name != "webhooks" && !name.starts_with("x-"))
    {
        fail(&pointer("", name), unknown(name, &["webhooks"]));
    }
    let list = match object.get("webhooks") {
        Some(Value::Array(list)) => list,
        None => {
            fail(
                "",
                "there is no list `webhooks:`; put the webhooks under it".to_owned(),
            );
            return Vec::new();
        }
        Some(_) => {
            fail(
                "/webhooks",
                "`webhooks` must be a list; write [] if there shall be none".to_owned(),
            );
            return Vec::new();
        }
    };
    let mut drafts = Vec::with_capacity(list.len());
    let mut seen: BTreeMap<WebhookId, String> = BTreeMap::new();
    for (position, entry) in list.iter().enumerate() {
        let at = format!("/webhooks/{position}");
        let mut draft = match read(entry, &at) {
            Ok(draft) => draft,
            Err(found) => {
                // A text whose variable is missing is likely to be wrong in itself too; once is enough.
                let said: Vec<String> = errors.iter().map(|error| error.pointer.clone()).collect();
                errors.extend(
                    found
                        .into_iter()
                        .filter(|error| !said.contains(&error.pointer)),
                );
                continue;
            }
        };
        if !draft.id_given {
            if draft.wanted.name.is_empty() {
                let message = "the webhook has neither `id` nor `name`; give it one, so that it is known again".to_owned();
                errors.push(FieldError {
                    pointer: at,
                    message,
                });
                continue;
            }
            draft.wanted.id =
                WebhookId::derived(draft.wanted.customer.as_ref(), &draft.wanted.name);
            draft.id_given = true;
        }
        if let Some(first) = seen.insert(draft.id().clone(), at.clone()) {
            let message = match entry.get("id") {
                Some(_) => format!("{first} has the same `id`; choose another"),
                None => format!(
                    "{first} has the same customer and name; give this one another name, or an `id`"
                ),
            };
            errors.push(FieldError {
                pointer: at,
                message,
            });
        }
        drafts.push(draft);
    }
    drafts
}

/// The text of a file with these webhooks, YAML, which [`load`] reads again. Secrets are masked as in
/// [`Subscription::public_json`], which `apply` understands as "as stored".
///
/// # Errors
/// The YAML writer failed.
pub fn write<'a>(
    webhooks: impl IntoIterator<Item = &'a Subscription>,
) -> Result<String, serde_saphyr::SerializeError> {
    #[derive(Serialize)]
    struct File {
        webhooks: Vec<View>,
    }
    let webhooks = webhooks.into_iter().map(escaped).collect();
    serde_saphyr::to_string(&File { webhooks })
}

/// A view in which `${` is written so that reading it again does not ask the environment.
fn escaped(subscription: &Subscription) -> View {
    let mut view = View::of(subscription);
    for text in [&mut view.name, &mut view.description, &mut view.url] {
        escape(text);
    }
    view.tags
        .iter_mut()
        .chain(&mut view.event_types)
        .for_each(escape);
    for value in [&mut view.filter, &mut view.customer].into_iter().flatten() {
        escape_value(value);
    }
    if let super::Auth::Basic { username, .. } = &mut view.auth {
        escape(username);
    }
    view
}

fn escape(text: &mut String) {
    if text.contains("${") {
        *text = text.replace("${", "$${");
    }
}

fn escape_value(value: &mut Value) {
    match value {
        Value::String(text) => escape(text),
        Value::Array(list) => list.iter_mut().for_each(escape_value),
        Value::Object(object) => object.values_mut().for_each(escape_value),
        _ => {}
    }
}

/// Keys are left alone, numbers do not become of it: `${NAME}` always gives text.
fn replace_variables(
    value: &mut Value,
    at: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    errors: &mut Vec<FieldError>,
) {
    match value {
        Value::String(text) => match replaced(text, environment) {
            Ok(None) => {}
            Ok(Some(new)) => *text = new,
            Err(message) => errors.push(FieldError {
                pointer: at.to_owned(),
                message,
            }),
        },
        Value::Array(list) => {
            for (position, entry) in list.iter_mut().enumerate() {
                replace_variables(
                    entry,
                    &pointer(at, &position.to_string()),
                    environment,
                    errors,
                );
            }
        }
        Value::Object(object) => {
            for (name, member) in object {
                replace_variables(member, &pointer(at, name), environment, errors);
            }
        }
        _ => {}
    }
}

/// `None` where there is nothing to replace. What was put in is not looked at again.
fn replaced(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>, String> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = rest.find("${") {
        let (before, after) = rest.split_at(position);
        let after = after.strip_prefix("${").unwrap_or_default();
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let (name, after) = after
            .split_once('}')
            .ok_or("`${` is not closed: write ${NAME}, or $${ where ${ itself is meant")?;
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty()
            || !name.bytes().all(legal)
            || name.starts_with(|first: char| first.is_ascii_digit())
        {
            return Err("between ${ and } must be the name of an environment variable; write $${ where ${ itself is meant"
                .to_owned());
        }
        let found = environment(name).ok_or_else(|| {
            format!("the environment variable {name} is not set; set it, or write $${{{name}}} where the text itself is meant")
        })?;
        out.push_str(&found);
        rest = after;
    }
    out.push_str(rest);
    Ok(Some(out))
}
