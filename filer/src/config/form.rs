//! A settings file, described once: the same description reads the file and writes its commented example.
//!
//! A section of the settings has one function that names its settings in order, each with a sentence, a [`Kind`] and
//! the place of its value. Given a document, the form fills the values in and notes every problem with its line;
//! given none, it lists what would be written.
//!
//! Owns: unknown and missing keys, wrong types, line numbers, the layout of a written file. Does not own: which
//! settings there are (`sections`, `clouds`, `nfs`), nor what they must be to each other (`checks`).

use super::{Problem, kinds::Kind};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// What is noted while a form is filled in or written out.
pub(super) struct Notes {
    /// Where each line of the file begins, in bytes; `None` for settings that stand in no file.
    line_starts: Option<Vec<usize>>,
    /// Relative paths start here.
    pub base: PathBuf,
    pub problems: Vec<Problem>,
    /// Values that are no TOML: of their lines nothing else is said in the end.
    pub faults: Vec<Problem>,
    /// The text is no TOML as a whole: what is read of it may have been meant otherwise, and is not judged.
    pub broken: bool,
    /// Every setting and section that the file has, and its line.
    lines: BTreeMap<String, Option<usize>>,
    /// Those of which the value cannot be read.
    unread: BTreeSet<String>,
    /// What would be written, in order.
    pub entries: Vec<Entry>,
}

/// One thing to write.
pub(super) enum Entry {
    /// The head of a section, such as `[mesh]`.
    Head { path: String, doc: &'static str, repeated: bool },
    /// A setting; `text` is its TOML, `None` while it is not set.
    Setting {
        path: String,
        key: &'static str,
        doc: &'static str,
        text: Option<String>,
        needed: bool,
        sample: &'static str,
    },
}

impl Notes {
    /// For the settings in `text`.
    pub fn new(text: &str, base: PathBuf) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { line_starts: Some(line_starts), ..Self::of_no_file(base) }
    }

    /// For settings that stand in no file: nothing has a line.
    pub fn of_no_file(base: PathBuf) -> Self {
        Self {
            line_starts: None,
            base,
            problems: vec![],
            faults: vec![],
            broken: false,
            lines: BTreeMap::new(),
            unread: BTreeSet::new(),
            entries: vec![],
        }
    }

    /// The line, counted from 1, in which byte `at` lies.
    fn line_at(&self, at: usize) -> Option<usize> {
        self.line_starts.as_ref().map(|starts| starts.partition_point(|&start| start <= at))
    }

    /// Whether the file has this setting or section.
    pub fn has(&self, path: &str) -> bool {
        self.lines.contains_key(path)
    }

    /// Whether the file has this setting and its value cannot be read: nothing can be said of what follows from it.
    pub fn is_unread(&self, path: &str) -> bool {
        self.unread.contains(path)
    }

    /// Where a setting has its value from, to be said behind its name: ` (line 7)`, or ` (the default)`.
    pub fn origin(&self, path: &str) -> String {
        match self.lines.get(path) {
            Some(Some(line)) => format!(" (line {line})"),
            Some(None) => String::new(),
            None => " (the default)".into(),
        }
    }

    /// The line of a setting, or of the innermost section around it that the file has.
    fn line_of(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(&line) = self.lines.get(path) {
                return line;
            }
            path = &path[..path.rfind('.')?];
        }
    }

    /// Notes a problem with a setting, at its line.
    pub fn problem(&mut self, path: &str, what: impl Into<String>) {
        self.problem_beside(path, path, what);
    }

    /// Notes a problem with a setting, at the line of `other`, such as the one that it is missing beside.
    pub fn problem_beside(&mut self, other: &str, path: &str, what: impl Into<String>) {
        let line = self.line_of(other);
        self.problems.push(Problem { line, setting: path.into(), what: what.into() });
    }

    /// Notes why the value of a setting cannot be read: at byte `at`, where that is known better than by its name.
    fn unreadable(&mut self, path: &str, at: Option<usize>, what: String) {
        let line = at.map_or_else(|| self.line_of(path), |at| self.line_at(at));
        self.problems.push(Problem { line, setting: path.into(), what });
        self.unread.insert(path.into());
    }

    /// All problems, in the order of their lines.
    pub fn into_problems(self) -> Vec<Problem> {
        let (mut problems, faults) = (self.problems, self.faults);
        problems.retain(|problem| faults.iter().all(|fault| fault.line != problem.line));
        problems.extend(faults);
        problems.sort_by_key(|problem| problem.line);
        problems.dedup();
        problems
    }
}

/// A section being filled in (`table`: what the file has of it) or written out.
pub(super) struct Form<'a, 'n> {
    mode: Mode<'a>,
    path: String,
    pub notes: &'n mut Notes,
    known: Vec<&'static str>,
    /// Set when it is not clear which settings belong here: none is called unknown then.
    lenient: bool,
}

#[derive(Clone, Copy)]
enum Mode<'a> {
    Read(Option<&'a DeTable<'a>>),
    Write,
}

impl<'a, 'n> Form<'a, 'n> {
    /// Fills in `fill`'s settings from the document.
    pub fn read(document: &'a DeTable<'a>, notes: &'n mut Notes, fill: impl FnOnce(&mut Form<'a, '_>)) {
        let mut form =
            Form { mode: Mode::Read(Some(document)), path: String::new(), notes, known: vec![], lenient: false };
        fill(&mut form);
        form.unknown();
    }

    /// Lists what `fill`'s settings are, into the notes.
    pub fn write(notes: &'n mut Notes, fill: impl FnOnce(&mut Form<'a, '_>)) {
        fill(&mut Form { mode: Mode::Write, path: String::new(), notes, known: vec![], lenient: false });
    }

    /// Whether a file is read.
    pub fn reads(&self) -> bool {
        matches!(self.mode, Mode::Read(_))
    }

    /// Whether the file has this section (always, when writing).
    pub fn present(&self) -> bool {
        !matches!(self.mode, Mode::Read(None))
    }

    /// Whether the file has this setting.
    pub fn has(&self, key: &str) -> bool {
        matches!(self.mode, Mode::Read(Some(table)) if table.contains_key(key))
    }

    /// The full name of a setting of this section; of the section itself where `key` is empty.
    fn path_of(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            (path, "") => path.into(),
            ("", key) => key.into(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    /// Whether the file has this setting (or, where `key` is empty, this section) and it cannot be read.
    pub fn is_unread(&self, key: &str) -> bool {
        self.notes.is_unread(&self.path_of(key))
    }

    /// Where a setting has its value from, as [`Notes::origin`] says it.
    pub fn origin(&self, key: &str) -> String {
        self.notes.origin(&self.path_of(key))
    }

    /// Notes a problem with a setting of this section; with the section itself where `key` is empty.
    pub fn problem(&mut self, key: &str, what: impl Into<String>) {
        self.problem_beside(key, key, what);
    }

    /// Notes a problem with a setting of this section, at the line of `other`, such as the one that it is missing beside.
    pub fn problem_beside(&mut self, other: &str, key: &str, what: impl Into<String>) {
        let (other, path) = (self.path_of(other), self.path_of(key));
        self.notes.problem_beside(&other, &path, what);
    }

    /// Calls no setting of this section unknown.
    pub fn lenient(&mut self) {
        self.lenient = true;
    }

    /// A setting that may be left out.
    pub fn set<K: Kind>(&mut self, key: &'static str, doc: &'static str, kind: K, value: &mut K::Value) {
        self.entry(key, doc, kind, value, false);
    }

    /// A setting that must be given.
    pub fn need<K: Kind>(&mut self, key: &'static str, doc: &'static str, kind: K, value: &mut K::Value) {
        self.entry(key, doc, kind, value, true);
    }

    fn entry<K: Kind>(&mut self, key: &'static str, doc: &'static str, kind: K, value: &mut K::Value, needed: bool) {
        let path = self.path_of(key);
        self.known.push(key);
        let table = match self.mode {
            Mode::Read(table) => table,
            Mode::Write => {
                let text = kind.write(value, &self.notes.base);
                self.notes.entries.push(Entry::Setting { path, key, doc, text, needed, sample: kind.sample() });
                return;
            }
        };
        match table.and_then(|table| table.get_key_value(key)) {
            None if needed => {
                let example = kind.write(value, &self.notes.base).filter(|text| text != "\"\"");
                let example = example.unwrap_or_else(|| kind.sample().into());
                self.notes.problem(&path, format!("is missing; add it, such as {key} = {example}"));
            }
            None => {}
            Some((name, found)) => {
                self.seen(&path, name);
                match kind.read(found.get_ref(), &self.notes.base) {
                    Ok(read) => *value = read,
                    Err(what) => self.notes.unreadable(&path, None, what),
                }
            }
        }
    }

    /// A list that may be left out. Each item that is wrong is told of at its own line; what the file has of it is not used
    /// then.
    pub fn list<K: Kind>(&mut self, key: &'static str, doc: &'static str, kind: K, values: &mut Vec<K::Value>) {
        let path = self.path_of(key);
        self.known.push(key);
        let table = match self.mode {
            Mode::Read(table) => table,
            Mode::Write => {
                let items = values.iter().filter_map(|value| kind.write(value, &self.notes.base));
                let text = Some(format!("[{}]", items.collect::<Vec<_>>().join(", ")));
                self.notes.entries.push(Entry::Setting { path, key, doc, text, needed: false, sample: "" });
                return;
            }
        };
        let Some((name, found)) = table.and_then(|table| table.get_key_value(key)) else { return };
        self.seen(&path, name);
        let Some(items) = found.get_ref().as_array() else {
            let found = super::kinds::type_of(found.get_ref());
            self.notes.unreadable(&path, None, format!("must be a list in [ ], not {found}"));
            return;
        };
        let mut read = vec![];
        for item in items.iter() {
            match kind.read(item.get_ref(), &self.notes.base) {
                Ok(value) => read.push(value),
                Err(what) => self.notes.unreadable(&path, Some(item.span().start), what),
            }
        }
        if read.len() == items.len() {
            *values = read;
        }
    }

    /// A section within this one.
    pub fn section(&mut self, key: &'static str, doc: &'static str, fill: impl FnOnce(&mut Form<'a, '_>)) {
        let path = self.path_of(key);
        self.known.push(key);
        let mode = match self.mode {
            Mode::Write => {
                self.notes.entries.push(Entry::Head { path: path.clone(), doc, repeated: false });
                Mode::Write
            }
            Mode::Read(table) => {
                Mode::Read(table.and_then(|table| table.get_key_value(key)).and_then(|(name, found)| {
                    self.seen(&path, name);
                    let table = found.get_ref().as_table();
                    if table.is_none() {
                        let found = super::kinds::type_of(found.get_ref());
                        self.notes.unreadable(&path, None, format!("must be a section, written [{path}], not {found}"));
                    }
                    table
                }))
            }
        };
        let mut form = Form { mode, path, notes: self.notes, known: vec![], lenient: false };
        fill(&mut form);
        form.unknown();
    }

    /// A section that may be given several times, written `[[path]]`. What the file has replaces the default.
    pub fn sections<T>(
        &mut self,
        key: &'static str,
        doc: &'static str,
        values: &mut Vec<T>,
        blank: fn() -> T,
        fill: impl Fn(&mut T, &mut Form<'a, '_>),
    ) {
        let path = self.path_of(key);
        self.known.push(key);
        let Mode::Read(table) = self.mode else {
            for (at, value) in values.iter_mut().enumerate() {
                let doc = if at == 0 { doc } else { "" };
                self.notes.entries.push(Entry::Head { path: path.clone(), doc, repeated: true });
                let path = format!("{path}.{at}");
                fill(value, &mut Form { mode: Mode::Write, path, notes: self.notes, known: vec![], lenient: false });
            }
            return;
        };
        let Some((name, found)) = table.and_then(|table| table.get_key_value(key)) else { return };
        self.seen(&path, name);
        let Some(array) = found.get_ref().as_array() else {
            let found = super::kinds::type_of(found.get_ref());
            let what = format!("must be a list of sections, each written [[{path}]], not {found}");
            self.notes.unreadable(&path, None, what);
            return;
        };
        values.clear();
        for (at, item) in array.iter().enumerate() {
            let path = format!("{path}.{at}");
            let line = self.notes.line_at(item.span().start);
            self.notes.lines.insert(path.clone(), line);
            let mut value = blank();
            match item.get_ref().as_table() {
                Some(table) => {
                    let mode = Mode::Read(Some(table));
                    let mut form = Form { mode, path, notes: self.notes, known: vec![], lenient: false };
                    fill(&mut value, &mut form);
                    form.unknown();
                }
                None => {
                    let (head, found) = (shown(&path), super::kinds::type_of(item.get_ref()));
                    self.notes.unreadable(&path, None, format!("must be a section, written {head}, not {found}"));
                }
            }
            values.push(value);
        }
    }

    fn seen(&mut self, path: &str, name: &Spanned<toml::de::DeString<'a>>) {
        let line = self.notes.line_at(name.span().start);
        self.notes.lines.insert(path.into(), line);
    }

    /// Notes what the file has in this section and nobody asked for.
    fn unknown(&mut self) {
        let Mode::Read(Some(table)) = self.mode else { return };
        if self.lenient {
            return;
        }
        for (name, found) in table {
            let key = name.get_ref().as_ref();
            if self.known.contains(&key) {
                continue;
            }
            let path = self.path_of(key);
            self.seen(&path, name);
            let what = match found.get_ref() {
                DeValue::Table(_) => "section",
                DeValue::Array(items) if items.first().is_some_and(|item| item.get_ref().is_table()) => "section",
                _ => "setting",
            };
            let place = match self.path.as_str() {
                "" => "at the top level".into(),
                path => format!("in {}", shown(path)),
            };
            let advice = match nearest(key, &self.known) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("known {place}: {}", self.known.join(", ")),
            };
            self.notes.problem(&path, format!("is no known {what} {place}; {advice}"));
        }
    }
}

/// The head of a section, as a file has it.
fn shown(path: &str) -> String {
    match path.rsplit_once('.') {
        Some((list, number)) if number.parse::<usize>().is_ok() => format!("[[{list}]]"),
        _ => format!("[{path}]"),
    }
}

/// The known name that `word` most likely stands for.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let close = |&name: &&str| {
        strsim::damerau_levenshtein(word, name) <= 1 + word.len().max(name.len()) / 4
            || (word.len() >= 3 && (name.starts_with(word) || word.starts_with(name)))
    };
    known.iter().copied().filter(close).min_by_key(|name| strsim::damerau_levenshtein(word, name))
}
