//! Typed reading of one TOML table: every key that is asked for is known, every other is a
//! problem, and so is a value of another type. Written by hand over the spanned tree, since serde
//! stops at the first problem and loses places in flattened and untagged types.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    code::Code,
    diagnostic::Diagnostic,
    source::{FileId, Located, Span},
};
use crate::model::suggest;

/// A value that is one of a few words.
pub(super) trait Word: Copy + 'static {
    /// The words and what they stand for.
    const WORDS: &'static [(&'static str, Self)];
}

/// A table that is being read.
pub(super) struct Table<'t, 's> {
    entries: &'t DeTable<'s>,
    file: FileId,
    /// What a missing key is blamed on: the header, or the inline table.
    at: Span,
    /// What it is called in messages, for example `[azure]`.
    name: String,
    known: Vec<&'static str>,
    /// Required keys that are not there, with what to add.
    missing: Vec<(&'static str, String)>,
}

/// A value of a table that is not of a simple type.
pub(super) struct Value<'t, 's> {
    value: &'t DeValue<'s>,
    pub(super) span: Span,
}

impl<'t, 's> Value<'t, 's> {
    fn new(file: FileId, value: &'t Spanned<DeValue<'s>>) -> Self {
        Self { value: value.get_ref(), span: Span::new(file, value.span()) }
    }

    pub(super) fn as_str(&self) -> Option<&'t str> {
        self.value.as_str()
    }

    /// The value as a table; anything else is reported with what the key takes.
    pub(super) fn table(
        &self,
        name: &str,
        takes: &str,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Table<'t, 's>> {
        let entries = self.value.as_table();
        if entries.is_none() {
            problems.push(wrong_type(name, takes, self.value, self.span));
        }
        entries.map(|entries| Table::new(entries, self.span, name))
    }

    /// The value as a list; anything else is reported.
    pub(super) fn list(
        &self,
        name: &str,
        takes: &str,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Vec<Self>> {
        let items = self.value.as_array();
        if items.is_none() {
            problems.push(wrong_type(name, takes, self.value, self.span));
        }
        items.map(|items| items.iter().map(|item| Self::new(self.span.file, item)).collect())
    }

    pub(super) fn string(
        &self,
        name: &str,
        takes: &str,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Located<String>> {
        let text = self.value.as_str();
        if text.is_none() {
            problems.push(wrong_type(name, takes, self.value, self.span));
        }
        text.map(|text| Located { value: text.to_owned(), span: self.span })
    }

    pub(super) fn word<W: Word>(
        &self,
        name: &str,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Located<W>> {
        let text = self.string(name, &one_of::<W>(), problems)?;
        let found = W::WORDS.iter().find(|(word, _)| *word == text.value);
        if found.is_none() {
            let words = W::WORDS.iter().map(|(word, _)| *word);
            problems.push(
                Diagnostic::at(
                    Code::InvalidValue,
                    self.span,
                    format!("`{name}` cannot be `{}`", text.value),
                )
                .label(format!("takes {}", one_of::<W>()))
                .suggest(suggest::similar(&text.value, words)),
            );
        }
        found.map(|(_, value)| text.with(*value))
    }
}

/// `"a", "b" or "c"`.
pub(super) fn one_of<W: Word>() -> String {
    let words: Vec<String> = W::WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

fn wrong_type(name: &str, takes: &str, found: &DeValue<'_>, span: Span) -> Diagnostic {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    Diagnostic::at(Code::WrongType, span, format!("`{name}` is {found}"))
        .label(format!("takes {takes}"))
}

impl<'t, 's> Table<'t, 's> {
    pub(super) fn new(entries: &'t DeTable<'s>, at: Span, name: &str) -> Self {
        Self {
            entries,
            file: at.file,
            at,
            name: name.to_owned(),
            known: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// Where the table's header or inline table is.
    pub(super) fn span(&self) -> Span {
        self.at
    }

    /// The value of a key, whatever its type.
    pub(super) fn value(&mut self, key: &'static str) -> Option<Value<'t, 's>> {
        self.known.push(key);
        self.entries
            .iter()
            .find(|(name, _)| name.get_ref() == key)
            .map(|(_, value)| Value::new(self.file, value))
    }

    /// Asks for a key that must be there. [`Self::finish`] reports it if it is not, and no other
    /// key looks like it misspelt.
    pub(super) fn require(&mut self, key: &'static str, example: &str) {
        if !self.entries.keys().any(|name| name.get_ref() == key) {
            self.missing.push((key, format!("add {example}")));
        }
    }

    pub(super) fn string(
        &mut self,
        key: &'static str,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Located<String>> {
        self.value(key)?.string(key, "a string", problems)
    }

    pub(super) fn boolean(
        &mut self,
        key: &'static str,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Located<bool>> {
        let found = self.value(key)?;
        if let DeValue::Boolean(value) = found.value {
            return Some(Located { value: *value, span: found.span });
        }
        let mut problem = wrong_type(key, "true or false", found.value, found.span);
        if let Some("true" | "false") = found.as_str() {
            problem = problem.help("leave the quotes out");
        }
        problems.push(problem);
        None
    }

    pub(super) fn integer(
        &mut self,
        key: &'static str,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Located<i64>> {
        let found = self.value(key)?;
        let DeValue::Integer(integer) = found.value else {
            problems.push(wrong_type(key, "an integer", found.value, found.span));
            return None;
        };
        let digits = integer.as_str().replace('_', "");
        // Beyond 64 bits is out of every range that is checked later.
        let value = i64::from_str_radix(&digits, integer.radix()).unwrap_or(i64::MAX);
        Some(Located { value, span: found.span })
    }

    pub(super) fn word<W: Word>(
        &mut self,
        key: &'static str,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Located<W>> {
        self.value(key)?.word(key, problems)
    }

    /// A list; its members are read by `read`, which reports what it does not take.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        takes: &str,
        problems: &mut Vec<Diagnostic>,
        mut read: impl FnMut(&Value<'t, 's>, &mut Vec<Diagnostic>) -> Option<T>,
    ) -> Option<Located<Vec<T>>> {
        let found = self.value(key)?;
        if let Some(text) = found.as_str() {
            let problem = wrong_type(key, takes, found.value, found.span);
            problems.push(problem.help(format!("write `{key} = [\"{text}\"]`")));
            return None;
        }
        let items = found.list(key, takes, problems)?;
        let read = items.iter().filter_map(|item| read(item, problems)).collect();
        Some(Located { value: read, span: found.span })
    }

    pub(super) fn strings(
        &mut self,
        key: &'static str,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Located<Vec<Located<String>>>> {
        self.list(key, "a list of strings", problems, |item, problems| {
            item.string(key, "a list of strings", problems)
        })
    }

    /// A table in this one.
    pub(super) fn table(
        &mut self,
        key: &'static str,
        name: &str,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Self> {
        self.value(key)?.table(name, "a table", problems)
    }

    /// The keys and values of a table whose keys are names, in the order of the text.
    pub(super) fn named(self) -> Vec<(Located<String>, Value<'t, 's>)> {
        let located = |name: &Spanned<std::borrow::Cow<'s, str>>| Located {
            value: name.get_ref().to_string(),
            span: Span::new(self.file, name.span()),
        };
        let mut all: Vec<_> = self
            .entries
            .iter()
            .map(|(name, value)| (located(name), Value::new(self.file, value)))
            .collect();
        all.sort_by_key(|(name, _)| name.span);
        all
    }

    /// Reports every key that was not asked for, and required ones that are missing. `elsewhere` are keys that mean something in
    /// another place: (key, where).
    pub(super) fn finish(mut self, elsewhere: &[(&str, &str)], problems: &mut Vec<Diagnostic>) {
        for name in self.entries.keys() {
            let key = name.get_ref().as_ref();
            if self.known.contains(&key) {
                continue;
            }
            let span = Span::new(self.file, name.span());
            let place = elsewhere.iter().find(|(word, _)| *word == key);
            let mut problem = Diagnostic::at(
                Code::UnknownKey,
                span,
                format!("unknown key `{key}` in {}", self.name),
            );
            problem = match place {
                Some((_, place)) => problem.help(format!("`{key}` belongs {place}")),
                None => match suggest::similar(key, self.known.iter().copied()) {
                    Some(word) => {
                        self.missing.retain(|(missing, _)| *missing != word);
                        problem.help(format!("did you mean `{word}`?"))
                    }
                    None => problem.help(format!("known keys: {}", self.known.join(", "))),
                },
            };
            problems.push(problem);
        }
        for (key, help) in self.missing {
            let message = format!("{} has no `{key}`", self.name);
            problems.push(Diagnostic::at(Code::MissingKey, self.at, message).help(help));
        }
    }
}
