use std::fmt;

/// Where key rules do not give what a [table](super) says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableError {
    misses: Vec<TableMiss>,
}

impl TableError {
    pub(super) fn new(mut misses: Vec<TableMiss>) -> Self {
        misses.sort_by_key(|miss| miss.row.as_ref().map(|(row, _)| *row));
        Self { misses }
    }

    /// Each point in which the table is not met, in the order of the rows.
    pub fn misses(&self) -> &[TableMiss] {
        &self.misses
    }
}

/// One point in which a [table](super) is not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMiss {
    row: Option<(usize, Box<str>)>,
    message: Box<str>,
}

impl TableMiss {
    pub(super) fn of_table(message: &str) -> Self {
        Self { row: None, message: message.into() }
    }

    pub(super) fn of_row(row: usize, label: &str, message: impl Into<Box<str>>) -> Self {
        Self { row: Some((row, label.into())), message: message.into() }
    }

    /// The position of the row, from 0 on. None if it is about the whole table.
    pub fn row(&self) -> Option<usize> {
        self.row.as_ref().map(|(row, _)| *row)
    }
}

impl fmt::Display for TableMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.row {
            Some((row, label)) => write!(f, "row {row} ({label}): {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.misses.len() == 1 { "" } else { "s" };
        write!(f, "the table is not met in {} point{plural}:", self.misses.len())?;
        self.misses.iter().try_for_each(|miss| write!(f, "\n{miss}"))
    }
}

impl std::error::Error for TableError {}
