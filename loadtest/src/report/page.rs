//! The page: one HTML file that asks for nothing else, by day and by night, on a desk and on a phone. Every text of a result is escaped by
//! the template; the pictures hold none.

use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    plot,
    taken::{Curve, Parts, Taken, milliseconds},
};
use crate::figures::{grouped_f64, slope};

const STYLE: &str = include_str!("page.css");

/// All results, those of one measurement beside each other.
///
/// # Errors
/// When a plot can't be drawn.
pub fn page(taken: &[Taken]) -> Result<String> {
    let mut measurements: Vec<&str> = Vec::new();
    for one in taken {
        if !measurements.contains(&one.measurement.as_str()) {
            measurements.push(&one.measurement);
        }
    }
    let of = |measurement: &&str| {
        let same: Vec<&Taken> = taken.iter().filter(|one| one.measurement == *measurement).collect();
        section(measurement, &same)
    };
    let sections = measurements.iter().map(of).collect::<Result<Vec<_>>>()?;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Martlet: " (measurements.join(", ")) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Martlet: load tests" }
                @for section in sections { (section) }
            }
        }
    };
    Ok(page.into_string())
}

fn section(measurement: &str, taken: &[&Taken]) -> Result<Markup> {
    Ok(html! {
        section {
            h2 { (measurement) }
            @for one in taken { (notes(one)) }
            (curves(taken)?)
            (memory(taken)?)
            (back(taken)?)
            @for one in taken { @for parts in &one.parts { (shares(one, parts, taken.len() > 1)) } }
            h3 { "Figures" }
            (table("figure", taken, |one| &one.figures))
            details {
                summary { "How and where it was taken" }
                (table("", taken, |one| &one.circumstances))
            }
        }
    })
}

/// What a reader must know before the figures.
fn notes(one: &Taken) -> Markup {
    html! {
        @if one.debug_build {
            p.wrong { (one.name) ": taken by a debug build. Its figures are no measure of anything." }
        }
        @if one.clean == Some(false) {
            p.wrong { (one.name) ": something was refused, lost or repeated; see the figures." }
        }
        @match one.corrected {
            Some(true) => p.note {
                (one.name) ": latencies count from the moment at which something was due, so they are corrected for coordinated omission."
            },
            Some(false) => p.note {
                (one.name) ": latencies count from the sending, which waits for earlier answers: not corrected for coordinated omission."
            },
            None => {},
        }
    }
}

/// A row for each name that any of them has, in the order in which they come, and a column for each result.
fn table(corner: &str, taken: &[&Taken], rows: impl Fn(&Taken) -> &[(String, String)]) -> Markup {
    let mut names: Vec<&str> = Vec::new();
    for one in taken {
        let mut after = 0;
        for (name, _) in rows(one) {
            match names.iter().position(|known| known == name) {
                Some(place) => after = place + 1,
                None => {
                    names.insert(after, name);
                    after += 1;
                }
            }
        }
    }
    let value = |one: &Taken, name: &str| {
        rows(one).iter().find(|(known, _)| known == name).map_or_else(String::new, |(_, value)| value.clone())
    };
    html! {
        div.wide {
            table {
                thead { tr { th { (corner) } @for one in taken { th { (one.name) } } } }
                tbody {
                    @for name in &names {
                        tr { th scope="row" { (name) } @for one in taken { td { (value(one, name)) } } }
                    }
                }
            }
        }
    }
}

/// A picture and the names of its series, in its colours.
fn figure(title: &str, svg: String, names: &[String]) -> Markup {
    html! {
        figure {
            figcaption { (title) }
            div.plot role="img" aria-label=(title) { (PreEscaped(svg)) }
            ul.legend {
                @for (place, name) in names.iter().enumerate() {
                    li { span.swatch style={ "background:" (plot::css(place)) } {} (name) }
                }
            }
        }
    }
}

/// One plot for each kind of latency, with the curves of all results over each other.
fn curves(taken: &[&Taken]) -> Result<Markup> {
    let mut kinds: Vec<&str> = Vec::new();
    for curve in taken.iter().flat_map(|one| &one.curves) {
        if !kinds.contains(&curve.kind.as_str()) {
            kinds.push(&curve.kind);
        }
    }
    let mut figures = Vec::new();
    for kind in kinds {
        let of_kind = |one: &&Taken| -> Vec<(String, Curve)> {
            let same = one.curves.iter().filter(|curve| curve.kind == kind);
            same.map(|curve| (one.name.clone(), curve.clone())).collect()
        };
        let found: Vec<(String, Curve)> = taken.iter().flat_map(of_kind).collect();
        let names: Vec<String> = found.iter().map(|(name, curve)| series(taken.len(), name, &curve.which)).collect();
        let points: Vec<&Vec<(f64, f64)>> = found.iter().map(|(_, curve)| &curve.points).collect();
        figures.push(figure(&format!("{kind} by percentile"), plot::latencies(&points)?, &names));
    }
    Ok(html! { @for figure in figures { (figure) } })
}

fn series(results: usize, name: &str, which: &str) -> String {
    match (results, which) {
        (1, "") => name.to_owned(),
        (1, which) => which.to_owned(),
        (_, "") => name.to_owned(),
        (_, which) => format!("{name}: {which}"),
    }
}

fn memory(taken: &[&Taken]) -> Result<Markup> {
    let with: Vec<&&Taken> = taken.iter().filter(|one| !one.memory.is_empty()).collect();
    if with.is_empty() {
        return Ok(html! {});
    }
    let name = |one: &&&Taken| match slope(&one.memory) {
        Some(bytes) => format!("{}: {} bytes per connection (slope)", one.name, grouped_f64(bytes)),
        None => one.name.clone(),
    };
    let names: Vec<String> = with.iter().map(name).collect();
    let points: Vec<&Vec<(f64, f64)>> = with.iter().map(|one| &one.memory).collect();
    Ok(figure("the node's resident memory over connections", plot::memory(&points)?, &names))
}

fn back(taken: &[&Taken]) -> Result<Markup> {
    let with: Vec<&&Taken> = taken.iter().filter(|one| !one.back.is_empty()).collect();
    if with.is_empty() {
        return Ok(html! {});
    }
    let names: Vec<String> = with.iter().map(|one| one.name.clone()).collect();
    let points: Vec<&Vec<(f64, f64)>> = with.iter().map(|one| &one.back).collect();
    Ok(figure("clients that are back and caught up", plot::back(&points)?, &names))
}

/// Of a latency, what each of its parts has in it, as one bar.
fn shares(one: &Taken, parts: &Parts, is_one_of_many: bool) -> Markup {
    let all: f64 = parts.parts.iter().map(|(_, ms)| ms).sum();
    let percent = |ms: f64| 100.0 * ms / all.max(f64::MIN_POSITIVE);
    let title = format!("shares: {}", parts.of);
    html! {
        figure {
            figcaption { @if is_one_of_many { (one.name) ": " } (title) }
            div.bar {
                @for (place, (_, ms)) in parts.parts.iter().enumerate() {
                    span style={ "background:" (plot::css(place)) ";width:" (format!("{:.2}", percent(*ms))) "%" } {}
                }
            }
            ul.legend {
                @for (place, (name, ms)) in parts.parts.iter().enumerate() {
                    li {
                        span.swatch style={ "background:" (plot::css(place)) } {}
                        (name) ": " (milliseconds(*ms)) " (" (format!("{:.0}", percent(*ms))) " %)"
                    }
                }
            }
        }
    }
}
