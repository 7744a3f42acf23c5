//! The little that the two databases must be able to do, so that every statement is written once for both.
//!
//! Statements number their parameters `$1`, `$2` … in the order in which they first appear, which SQLite (by position) and
//! PostgreSQL (by number) read alike.

use std::borrow::Cow;

use super::Fault;

/// A value on its way into or out of a database.
#[derive(Debug)]
pub(super) enum Value<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(Cow<'a, str>),
}

impl Value<'_> {
    /// For a database that works on a thread of its own.
    pub(super) fn owned(&self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Integer(number) => Value::Integer(*number),
            Self::Real(number) => Value::Real(*number),
            Self::Text(text) => Value::Text(Cow::Owned(text.as_ref().to_owned())),
        }
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<u16> for Value<'_> {
    fn from(number: u16) -> Self {
        Self::Integer(number.into())
    }
}

impl<'a> From<Cow<'a, str>> for Value<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        // PostgreSQL takes no NUL in a text.
        Self::Text(if text.contains('\0') {
            text.replace('\0', "\u{fffd}").into()
        } else {
            text
        })
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Cow::<str>::Owned(text).into()
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Cow::Borrowed(text).into()
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// One statement with its parameters.
#[derive(Debug)]
pub(super) struct Statement<'a> {
    pub(super) text: Cow<'static, str>,
    pub(super) parameters: Vec<Value<'a>>,
}

impl Statement<'_> {
    /// As [`Value::owned`].
    pub(super) fn owned(&self) -> Statement<'static> {
        Statement {
            text: self.text.clone(),
            parameters: self.parameters.iter().map(Value::owned).collect(),
        }
    }
}

/// A row of an answer, read from the left.
pub(super) struct Row(pub(super) std::vec::IntoIter<Value<'static>>);

impl Row {
    fn next(&mut self) -> Result<Value<'static>, Fault> {
        self.0.next().ok_or(Fault::Row("a column is missing"))
    }

    pub(super) fn text(&mut self) -> Result<String, Fault> {
        self.optional_text()?.ok_or(Fault::Row("a text is missing"))
    }

    pub(super) fn optional_text(&mut self) -> Result<Option<String>, Fault> {
        match self.next()? {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text.into_owned())),
            _ => Err(Fault::Row("a number where a text should be")),
        }
    }

    pub(super) fn number(&mut self) -> Result<i64, Fault> {
        self.optional_number()?
            .ok_or(Fault::Row("a number is missing"))
    }

    pub(super) fn optional_number(&mut self) -> Result<Option<i64>, Fault> {
        match self.next()? {
            Value::Null => Ok(None),
            Value::Integer(number) => Ok(Some(number)),
            _ => Err(Fault::Row("no whole number where one should be")),
        }
    }

    pub(super) fn small<T: TryFrom<i64>>(&mut self) -> Result<Option<T>, Fault> {
        self.optional_number()?
            .map(|number| T::try_from(number).map_err(|_| Fault::Row("a number is out of range")))
            .transpose()
    }
}

/// A database. Shared by the writer and those who ask.
pub(super) trait Database: Send + Sync {
    /// All statements in one transaction; the answer is how many rows the last of them changed.
    fn write(&self, statements: &[Statement]) -> Result<u64, Fault>;

    /// Statements without parameters, separated by semicolons, one after another.
    fn define(&self, statements: &str) -> Result<(), Fault>;

    fn read(&self, text: &str, parameters: &[Value]) -> Result<Vec<Row>, Fault>;

    /// What the view takes on disk, in bytes.
    fn bytes(&self) -> Result<i64, Fault>;

    /// Gives back what deleted rows took, where the database does not by itself.
    fn compact(&self) -> Result<(), Fault>;
}
