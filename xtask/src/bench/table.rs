//! A table of figures as Markdown.

/// Rows of what was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    rows: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    what: String,
    figure: String,
    target: String,
    conditions: String,
}

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// No more than this.
    AtMost(f64),
    /// Below this.
    Below(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Target {
    fn is_met(self, figure: f64) -> bool {
        match self {
            Self::AtMost(most) => figure <= most,
            Self::Below(limit) => figure < limit,
            Self::AtLeast(least) => figure >= least,
        }
    }

    fn words(self, unit: &str) -> String {
        let (words, number) = match self {
            Self::AtMost(number) => ("at most", number),
            Self::Below(number) => ("below", number),
            Self::AtLeast(number) => ("at least", number),
        };
        format!("{words} {}{unit}", grouped(number, if number.fract() == 0.0 { 0 } else { 2 }))
    }
}

impl Table {
    /// A row without a target.
    pub fn row(&mut self, what: impl Into<String>, figure: impl Into<String>, conditions: impl Into<String>) {
        let row =
            Row { what: what.into(), figure: figure.into(), target: String::new(), conditions: conditions.into() };
        self.rows.push(row);
    }

    /// A row whose figure should be something: the target stands beside it, and whether it is missed.
    pub fn aimed(
        &mut self,
        what: impl Into<String>,
        (figure, digits, unit): (f64, usize, &str),
        target: Target,
        conditions: impl Into<String>,
    ) {
        let missed = if target.is_met(figure) { "" } else { " (**missed**)" };
        self.rows.push(Row {
            what: what.into(),
            figure: format!("{}{unit}", grouped(figure, digits)),
            target: target.words(unit) + missed,
            conditions: conditions.into(),
        });
    }

    /// As GitHub reads it.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = "| measured | figure | target | conditions |\n|---|---|---|---|\n".to_owned();
        for Row { what, figure, target, conditions } in &self.rows {
            let cells = [what, figure, target, conditions].map(|cell| cell.replace('|', "/"));
            text += &format!("| {} |\n", cells.join(" | "));
        }
        text
    }
}

/// A number with its digits in groups of three and so many after the point.
#[must_use]
pub fn grouped(number: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", number.abs());
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(whole, _)| (whole, &text[whole.len()..]));
    let mut out = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    format!("{}{out}{rest}", if number < 0.0 { "-" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_beside_their_targets() {
        let mut table = Table::default();
        table.row("lost", "0", "a | b");
        table.aimed("memory", (2_606.4, 0, " bytes"), Target::AtMost(3_500.0), "embedded");
        table.aimed("p95", (250.0, 1, " ms"), Target::Below(250.0), "");
        table.aimed("ratio", (9.96, 2, ""), Target::AtLeast(10.0), "");
        assert_eq!(
            table.markdown(),
            "| measured | figure | target | conditions |\n|---|---|---|---|\n\
             | lost | 0 |  | a / b |\n\
             | memory | 2,606 bytes | at most 3,500 bytes | embedded |\n\
             | p95 | 250.0 ms | below 250 ms (**missed**) |  |\n\
             | ratio | 9.96 | at least 10 (**missed**) |  |\n"
        );
    }

    #[test]
    fn digits_stand_in_groups() {
        assert_eq!(grouped(1_234_567.891, 1), "1,234,567.9");
        assert_eq!(grouped(-1_234.0, 0), "-1,234");
        assert_eq!(grouped(0.35, 2), "0.35");
    }
}
