//! Curves as SVG. Names stand in the page beside them, not in the picture, so that they can be read on a phone and need no escaping here.

use anyhow::{Result, anyhow};
use plotters::{
    coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter},
    prelude::*,
};

use super::taken::milliseconds;
use crate::figures::grouped_f64;

/// Width and height in the picture's own units; the page scales it.
const SIZE: (u32, u32) = (640, 380);
/// The page's style gives these two their colours by day and by night.
const INK: RGBColor = RGBColor(0x11, 0x11, 0x11);
const GRID: RGBColor = RGBColor(0xcc, 0xcc, 0xcc);
/// Told apart by colour-blind eyes too, on white and on black.
pub const COLOURS: [RGBColor; 8] = [
    RGBColor(0x2f, 0x7f, 0xd0),
    RGBColor(0xd9, 0x6a, 0x1c),
    RGBColor(0x1a, 0x9e, 0x77),
    RGBColor(0xc4, 0x4f, 0x9b),
    RGBColor(0xb0, 0x8d, 0x00),
    RGBColor(0x7a, 0x6f, 0xd6),
    RGBColor(0x4a, 0xa8, 0xc9),
    RGBColor(0x8c, 0x8c, 0x8c),
];

/// The colour of a series, as CSS writes it.
pub fn css(place: usize) -> String {
    let RGBColor(r, g, b) = COLOURS[place % COLOURS.len()];
    format!("#{r:02x}{g:02x}{b:02x}")
}

type Points = Vec<(f64, f64)>;

/// An axis: as long as the ticks go, from the first tick to the last, each with its words.
struct Axis {
    title: &'static str,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    fn bounds(&self) -> std::ops::Range<f64> {
        let place = |tick: Option<&(f64, String)>| tick.map_or(0.0, |(at, _)| *at);
        let (from, to) = (place(self.ticks.first()), place(self.ticks.last()));
        from..if to > from { to } else { from + 1.0 }
    }

    fn words(&self, place: f64) -> String {
        let found = self.ticks.iter().find(|(at, _)| (at - place).abs() < 1e-9);
        found.map_or_else(String::new, |(_, words)| words.clone())
    }

    /// From nothing up to a number that is round enough.
    fn linear(title: &'static str, most: f64, words: impl Fn(f64) -> String) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let magnitude = 10_f64.powf((most / 5.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * magnitude).into_iter().find(|step| step * 6.0 > most);
        let step = step.unwrap_or(most);
        let mut ticks = vec![(0.0, words(0.0))];
        while let Some((last, _)) = ticks.last().filter(|(last, _)| *last < most) {
            let next = last + step;
            ticks.push((next, words(next)));
        }
        Self { title, ticks }
    }

    /// Milliseconds on a logarithmic scale: 1, 2, 5 and so on, of which the ones are named, or all if they are few.
    fn log_ms(least: f64, most: f64) -> Self {
        let (from, to) = (least.max(1e-3).log10().floor(), most.max(1e-3).log10());
        let mut ticks = Vec::new();
        let mut decade = from;
        while decade <= to.ceil() {
            for multiple in [1.0_f64, 2.0, 5.0] {
                let place = decade + multiple.log10();
                let is_past = ticks.last().is_some_and(|(last, _)| *last >= to);
                if !is_past {
                    let is_named = multiple < 1.5 || to - from <= 2.5;
                    let ms = multiple * 10_f64.powf(decade);
                    ticks.push((place, if is_named { milliseconds(ms) } else { String::new() }));
                }
            }
            decade += 1.0;
        }
        Self { title: "", ticks }
    }

    /// 0 %, 90 %, 99 % and so on, at equal distances.
    fn percentiles(most: f64) -> Self {
        let mut ticks = vec![(0.0, "0 %".to_owned())];
        while let Some((last, _)) = ticks.last().filter(|(last, _)| *last < most) {
            let next = last + 1.0;
            let nines = next as usize;
            let words = if nines <= 2 { "9".repeat(nines) } else { format!("99.{}", "9".repeat(nines - 2)) };
            ticks.push((next, if nines == 1 { "90 %".to_owned() } else { words + " %" }));
        }
        Self { title: "percentile", ticks }
    }
}

impl Ranged for &Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let bounds = self.bounds();
        let share = (value - bounds.start) / (bounds.end - bounds.start);
        from + (share.clamp(0.0, 1.0) * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.bounds()
    }
}

impl ValueFormatter<f64> for &Axis {
    fn format_ext(&self, value: &f64) -> String {
        self.words(*value)
    }
}

/// Latencies by percentile, as HDR plots have them: 90, 99, 99.9 % and so on at equal distances, milliseconds on a logarithmic scale.
///
/// # Errors
/// When it can't be drawn.
pub fn latencies(curves: &[&Points]) -> Result<String> {
    let place = |percent: f64| -((100.0 - percent).max(1e-12) / 100.0).log10();
    let moved: Vec<Points> = curves
        .iter()
        .map(|points| {
            // 100 % lies infinitely far away; the longest time is drawn above the last place that doesn't.
            let last =
                points.iter().map(|(percent, _)| *percent).filter(|percent| *percent < 100.0).fold(0.0, f64::max);
            points.iter().map(|(percent, ms)| (place(percent.min(last)), ms.max(1e-3).log10())).collect()
        })
        .collect();
    let all = || curves.iter().flat_map(|points| points.iter());
    let least = all().map(|(_, ms)| *ms).fold(f64::INFINITY, f64::min);
    let most = all().map(|(_, ms)| *ms).fold(0.0, f64::max);
    let furthest = moved.iter().flatten().map(|(x, _)| *x).fold(0.0, f64::max);
    draw(&Axis::percentiles(furthest), &Axis::log_ms(least.min(most), most), &moved, false)
}

/// The node's memory over connections: a dot for each step.
///
/// # Errors
/// When it can't be drawn.
pub fn memory(series: &[&Points]) -> Result<String> {
    let scaled: Vec<Points> = series
        .iter()
        .map(|points| points.iter().map(|(n, bytes)| (*n, bytes / f64::from(1 << 20))).collect())
        .collect();
    let (x, y) = largest(&scaled);
    let mib = |mib| format!("{} MiB", grouped_f64(mib));
    draw(&Axis::linear("connections", x, grouped_f64), &Axis::linear("", y, mib), &scaled, true)
}

/// How many were back after how many seconds.
///
/// # Errors
/// When it can't be drawn.
pub fn back(series: &[&Points]) -> Result<String> {
    let series: Vec<Points> = series.iter().map(|points| (*points).clone()).collect();
    let (x, y) = largest(&series);
    let seconds = |s: f64| format!("{s:.1} s");
    draw(&Axis::linear("since the node's return", x, seconds), &Axis::linear("", y, grouped_f64), &series, false)
}

fn largest(series: &[Points]) -> (f64, f64) {
    series.iter().flatten().fold((0.0, 0.0), |(x, y), point| (x.max(point.0), y.max(point.1)))
}

fn draw(x: &Axis, y: &Axis, series: &[Points], dots: bool) -> Result<String> {
    let mut svg = String::new();
    let failed = |error: String| anyhow!("a plot can't be drawn: {error}");
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(8)
            .margin_right(56)
            .x_label_area_size(58)
            .y_label_area_size(84)
            .build_cartesian_2d(x, y)
            .map_err(|error| failed(error.to_string()))?;
        let label = ("sans-serif", 19).into_font().color(&INK);
        chart
            .configure_mesh()
            .x_labels(x.ticks.len())
            .y_labels(y.ticks.len())
            .x_desc(x.title)
            .label_style(label.clone())
            .axis_desc_style(label)
            .axis_style(INK)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .draw()
            .map_err(|error| failed(error.to_string()))?;
        for (place, points) in series.iter().enumerate() {
            let colour = COLOURS[place % COLOURS.len()];
            let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
            let line = if dots { line.point_size(4) } else { line };
            chart.draw_series(line).map_err(|error| failed(error.to_string()))?;
        }
        area.present().map_err(|error| failed(error.to_string()))?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_named_by_their_nines() {
        let words: Vec<String> = Axis::percentiles(4.2).ticks.into_iter().map(|(_, words)| words).collect();
        assert_eq!(words, ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"]);
    }

    #[test]
    fn axes_hold_what_is_drawn() {
        for most in [0.0, 0.3, 1.0, 7.0, 19_000.0, 123_456.0] {
            let axis = Axis::linear("", most, grouped_f64);
            assert!(axis.bounds().end >= most && axis.ticks.len() <= 8, "{most}: {:?}", axis.ticks);
        }
        for (least, most) in [(0.2, 0.2), (0.05, 3.0), (1.0, 10.0), (3.0, 42_000.0)] {
            let bounds = Axis::log_ms(least, most).bounds();
            assert!(
                bounds.start <= f64::log10(least) && bounds.end >= f64::log10(most),
                "{least} to {most}: {bounds:?}"
            );
        }
    }
}
