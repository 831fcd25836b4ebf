//! Printing: tables and colours for people at a terminal, plain text for pipes, JSON for programs.

use std::io::{self, IsTerminal as _, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::failure::{Doing as _, Failure};

/// What the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A person at a terminal.
    Terminal {
        /// Whether they want colours.
        colours: bool,
    },
    /// A file or a pipe.
    Plain,
    /// A program that asked for JSON.
    Json,
}

impl Reader {
    /// The reader of this process's standard output.
    pub(crate) fn of_stdout(json: bool) -> Self {
        // https://no-color.org: set and not empty, whatever the value.
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        match (json, io::stdout().is_terminal()) {
            (true, _) => Self::Json,
            (false, true) => Self::Terminal { colours: !no_colour && !dumb },
            (false, false) => Self::Plain,
        }
    }
}

/// A colour, by what it means.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Colour {
    Good,
    Warn,
    Bad,
    Heading,
    Quiet,
}

impl Colour {
    /// The number of ECMA-48's SGR.
    fn sgr(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "31;1",
            Self::Heading => "1",
            Self::Quiet => "2",
        }
    }
}

/// Where a command's answer goes.
pub(crate) struct Out<'a> {
    to: &'a mut dyn Write,
    reader: Reader,
}

impl<'a> Out<'a> {
    pub(crate) fn new(to: &'a mut dyn Write, reader: Reader) -> Self {
        Self { to, reader }
    }

    /// Whether JSON was asked for.
    pub(crate) fn is_json(&self) -> bool {
        self.reader == Reader::Json
    }

    /// One line.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) -> Result<(), Failure> {
        writeln!(self.to, "{}", line.as_ref()).doing("write the answer")
    }

    /// `text`, coloured where the reader wants it.
    pub(crate) fn coloured(&self, colour: Colour, text: &str) -> String {
        match self.reader {
            Reader::Terminal { colours: true } => format!("\x1b[{}m{text}\x1b[0m", colour.sgr()),
            _ => text.to_owned(),
        }
    }

    /// A value for programs.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_vec_pretty(value).doing("write the answer")?;
        text.push(b'\n');
        self.bytes(&text)
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.to.write_all(bytes).doing("write the answer")
    }

    /// A table; `nothing` is said instead of one without rows, at a terminal.
    pub(crate) fn table(
        &mut self,
        head: &[&str],
        rows: Vec<Vec<String>>,
        nothing: &str,
    ) -> Result<(), Failure> {
        match self.reader {
            Reader::Terminal { .. } if rows.is_empty() => {
                let nothing = self.coloured(Colour::Quiet, nothing);
                self.line(nothing)
            }
            Reader::Terminal { colours } => {
                let mut table = table(head, rows);
                table.load_style(presets::UTF8_FULL_CONDENSED.with_rounded_corners());
                let text = table.to_string();
                // The library's own colours need a terminal library; a heading is one line.
                for (number, line) in text.lines().enumerate() {
                    if number == 1 && colours {
                        let heading = self.coloured(Colour::Heading, line);
                        self.line(heading)?;
                    } else {
                        self.line(line)?;
                    }
                }
                Ok(())
            }
            Reader::Plain | Reader::Json => {
                // What reads a pipe reads lines: one for each row.
                let rows =
                    rows.into_iter().map(|row| row.iter().map(|cell| cell.replace('\n', ",")).collect());
                let rows = rows.collect();
                let mut table = table(head, rows);
                table.load_style(presets::NOTHING);
                for column in table.column_iter_mut() {
                    column.set_padding((0, 2));
                }
                let text = table.to_string();
                text.lines().try_for_each(|line| self.line(line.trim_end()))
            }
        }
    }
}

fn table(head: &[&str], rows: Vec<Vec<String>>) -> Table {
    let mut table = Table::new();
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.to_vec());
    table.add_rows(rows);
    table
}

/// Writes to standard output. That nobody reads it is no error.
pub(crate) fn to_stdout(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        vec![vec!["n0".to_owned(), "berth0".to_owned()], vec!["longer".to_owned(), "a\nb".to_owned()]]
    }

    fn printed(reader: Reader, rows: Vec<Vec<String>>) -> String {
        let mut bytes = Vec::new();
        Out::new(&mut bytes, reader).table(&["NETWORK", "BRIDGE"], rows, "no networks").unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_pipe_gets_one_line_for_each_row() {
        insta::assert_snapshot!(printed(Reader::Plain, rows()), @r"
        NETWORK  BRIDGE
        n0       berth0
        longer   a,b
        ");
    }

    #[test]
    fn a_terminal_gets_a_frame() {
        insta::assert_snapshot!(printed(Reader::Terminal { colours: false }, rows()));
    }

    #[test]
    fn an_empty_table_says_so_at_a_terminal_and_keeps_its_heading_in_a_pipe() {
        assert_eq!(printed(Reader::Terminal { colours: false }, Vec::new()), "no networks\n");
        assert_eq!(printed(Reader::Plain, Vec::new()), "NETWORK  BRIDGE\n");
    }

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        let mut bytes = Vec::new();
        for (reader, text) in [
            (Reader::Terminal { colours: true }, "\x1b[32mgood\x1b[0m"),
            (Reader::Terminal { colours: false }, "good"),
            (Reader::Plain, "good"),
            (Reader::Json, "good"),
        ] {
            assert_eq!(Out::new(&mut bytes, reader).coloured(Colour::Good, "good"), text);
        }
    }
}
