//! The little that the two databases must be able to do, so that every statement is written once for both.
//!
//! Statements number their parameters `$1`, `$2` … in the order in which they first appear, which SQLite (by position) and
//! PostgreSQL (by number) read alike.

use super::Fault;

/// A value on its way into or out of a database.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Integer(number.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        // PostgreSQL takes no NUL in a text.
        Self::Text(if text.contains('\0') {
            text.replace('\0', "\u{fffd}")
        } else {
            text
        })
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// One statement with its parameters.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) text: std::borrow::Cow<'static, str>,
    pub(super) parameters: Vec<Value>,
}

/// A row of an answer, read from the left.
pub(super) struct Row(pub(super) std::vec::IntoIter<Value>);

impl Row {
    fn next(&mut self) -> Result<Value, Fault> {
        self.0.next().ok_or(Fault::Row("a column is missing"))
    }

    pub(super) fn text(&mut self) -> Result<String, Fault> {
        self.optional_text()?.ok_or(Fault::Row("a text is missing"))
    }

    pub(super) fn optional_text(&mut self) -> Result<Option<String>, Fault> {
        match self.next()? {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text)),
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
