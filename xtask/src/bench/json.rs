//! Reading results. What is not there, or not a number, is an error that names the place: a table is never made of nothing.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// A result in a file, and its name for messages.
#[derive(Debug, Clone)]
pub struct Json {
    name: String,
    value: Value,
}

impl Json {
    /// Reads a file.
    ///
    /// # Errors
    /// It is not there, or no JSON.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("there is no {}", file.display()))?;
        let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
        Self::parse(&name, &text)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// It is no JSON.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let value = serde_json::from_str(text).with_context(|| format!("{name} is no JSON"))?;
        Ok(Self { name: name.to_owned(), value })
    }

    /// What stands at a place such as `/result/steps/0`.
    ///
    /// # Errors
    /// Nothing does.
    pub fn at(&self, pointer: &str) -> Result<Self> {
        let value = self.value.pointer(pointer).filter(|value| !value.is_null());
        let value = value.with_context(|| format!("{} has no {pointer}", self.name))?.clone();
        Ok(Self { name: format!("{}{pointer}", self.name), value })
    }

    /// A number.
    ///
    /// # Errors
    /// It is none.
    pub fn number(&self, pointer: &str) -> Result<f64> {
        let found = self.at(pointer)?;
        found.value.as_f64().with_context(|| format!("{} is no number", found.name))
    }

    /// A text.
    ///
    /// # Errors
    /// It is none.
    pub fn text(&self, pointer: &str) -> Result<String> {
        let found = self.at(pointer)?;
        Ok(found.value.as_str().with_context(|| format!("{} is no text", found.name))?.to_owned())
    }

    /// Yes or no.
    ///
    /// # Errors
    /// It is neither.
    pub fn is(&self, pointer: &str) -> Result<bool> {
        let found = self.at(pointer)?;
        found.value.as_bool().with_context(|| format!("{} is neither true nor false", found.name))
    }

    /// A list that is not empty.
    ///
    /// # Errors
    /// It is none, or empty.
    pub fn list(&self, pointer: &str) -> Result<Vec<Self>> {
        let found = self.at(pointer)?;
        let items = found.value.as_array().filter(|items| !items.is_empty());
        let items = items.with_context(|| format!("{} is no list of something", found.name))?;
        let item = |(at, value): (usize, &Value)| Self { name: format!("{}/{at}", found.name), value: value.clone() };
        Ok(items.iter().enumerate().map(item).collect())
    }
}

/// The middle one of several, or the mean of the two in the middle.
///
/// # Errors
/// There are none.
pub fn median(mut values: Vec<f64>) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => anyhow::bail!("there is no median of nothing"),
        n if n % 2 == 1 => Ok(values[n / 2]),
        n => Ok(f64::midpoint(values[n / 2 - 1], values[n / 2])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let json = Json::parse("idle.json", r#"{"result":{"steps":[],"n":1.5,"none":null,"name":"x"}}"#).expect("JSON");
        assert_eq!(json.number("/result/n").ok(), Some(1.5));
        let told = |result: Result<()>| result.expect_err("wrong").to_string();
        assert_eq!(told(json.number("/result/m").map(drop)), "idle.json has no /result/m");
        assert_eq!(told(json.number("/result/none").map(drop)), "idle.json has no /result/none");
        assert_eq!(told(json.number("/result/name").map(drop)), "idle.json/result/name is no number");
        assert_eq!(told(json.list("/result/steps").map(drop)), "idle.json/result/steps is no list of something");
        assert!(Json::parse("x", "").is_err());
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]).ok(), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]).ok(), Some(2.5));
        assert!(median(vec![]).is_err());
    }
}
