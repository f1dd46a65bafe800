//! A plot over time, in SVG: without script and without styles of its own.

use std::fmt::Write;

use maud::{Markup, html};

/// Places in the drawing, whose size is 400 × 200.
const LEFT: f64 = 46.0;
const RIGHT: f64 = 392.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 172.0;

/// Numbers over time.
pub(super) struct Plot<'a> {
    /// Tells it from the others of the page.
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    /// Empty where the title says it.
    pub(super) unit: &'a str,
    /// In milliseconds since 1970.
    pub(super) since: i64,
    pub(super) until: i64,
    /// One or two.
    pub(super) lines: Vec<Line<'a>>,
}

/// One of its lines.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    /// Times in milliseconds since 1970, and what was then, if anything.
    pub(super) points: Vec<(i64, Option<f64>)>,
}

impl Plot<'_> {
    pub(super) fn draw(&self) -> Markup {
        let values = self.lines.iter().flat_map(|line| line.points.iter().filter_map(|(_, value)| *value));
        let highest = values.fold(0.0, f64::max);
        let top = round_up(highest);
        let (title, text) = (format!("{}-title", self.id), format!("{}-text", self.id));
        html! {
            figure {
                figcaption {
                    strong { (self.title) }
                    @if !self.unit.is_empty() { ", " (self.unit) }
                    @if self.lines.len() > 1 { (self.legend()) }
                }
                svg viewBox="0 0 400 200" role="img" aria-labelledby={ (title) " " (text) } {
                    title id=(title) { (self.title) }
                    desc id=(text) { "At most " (number(highest)) " " (self.unit) ". The numbers are in the table below." }
                    (self.axes(top))
                    @for (place, line) in self.lines.iter().enumerate() {
                        path class={ "line line-" (place) } d=(self.path(line, top)) {}
                        @for (x, y) in self.alone(line, top) {
                            circle class={ "dot-" (place) } cx=(x) cy=(y) r="2.5" {}
                        }
                    }
                }
            }
        }
    }

    /// Which line is which; not by colour alone.
    fn legend(&self) -> Markup {
        html! {
            span class="legend" {
                @for (place, line) in self.lines.iter().enumerate() {
                    span {
                        svg viewBox="0 0 24 8" width="24" height="8" aria-hidden="true" {
                            path class={ "line line-" (place) } d="M0 4h24" {}
                        }
                        " " (line.name)
                    }
                }
            }
        }
    }

    fn axes(&self, top: f64) -> Markup {
        let middle = self.since + (self.until - self.since) / 2;
        html! {
            @for value in [0.0, top / 2.0, top] {
                @let y = height(value, top);
                path class="grid" d={ "M" (LEFT) " " (point(y)) "H" (RIGHT) } {}
                text x=(LEFT - 5.0) y=(point(y + 4.0)) text-anchor="end" { (number(value)) }
            }
            @for (at, anchor) in [(self.since, "start"), (middle, "middle"), (self.until, "end")] {
                text x=(point(self.across(at))) y="192" text-anchor=(anchor) { (clock(at)) }
            }
        }
    }

    /// Lines through neighbours.
    fn path(&self, line: &Line<'_>, top: f64) -> String {
        let mut path = String::new();
        for run in runs(line).filter(|run| run.len() > 1) {
            for (place, (at, value)) in run.iter().enumerate() {
                let (x, y) = (point(self.across(*at)), point(height(value.unwrap_or_default(), top)));
                _ = write!(path, "{}{x} {y}", if place == 0 { 'M' } else { 'L' });
            }
        }
        path
    }

    /// Points without neighbours, which no line shows.
    fn alone(&self, line: &Line<'_>, top: f64) -> Vec<(String, String)> {
        let alone = runs(line).filter_map(|run| if let [only] = run { Some(*only) } else { None });
        let place = |(at, value): (i64, Option<f64>)| {
            (point(self.across(at)), point(height(value.unwrap_or_default(), top)))
        };
        alone.map(place).collect()
    }

    fn across(&self, at: i64) -> f64 {
        let part = (at - self.since) as f64 / (self.until - self.since).max(1) as f64;
        LEFT + part.clamp(0.0, 1.0) * (RIGHT - LEFT)
    }
}

/// What is known, without the gaps between.
fn runs<'l>(line: &'l Line<'_>) -> impl Iterator<Item = &'l [(i64, Option<f64>)]> {
    line.points.split(|(_, value)| value.is_none()).filter(|run| !run.is_empty())
}

fn height(value: f64, top: f64) -> f64 {
    BOTTOM - (value / top).clamp(0.0, 1.0) * (BOTTOM - TOP)
}

/// A tenth of the smallest thing that a screen shows.
fn point(place: f64) -> String {
    format!("{place:.1}")
}

/// The next number that reads well: 1, 2 or 5 and zeros; and half of it does as well.
fn round_up(value: f64) -> f64 {
    if value.is_nan() || value <= 1.0 {
        return if value > 0.1 || value.is_nan() || value == 0.0 { 1.0 } else { 0.1 };
    }
    let unit = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * unit).find(|step| *step >= value).unwrap_or(value)
}

/// A number on an axis.
fn number(value: f64) -> String {
    match value {
        1_000_000.0.. => format!("{:.1}M", value / 1e6),
        10_000.0.. => format!("{:.0}k", value / 1e3),
        10.0.. => format!("{value:.0}"),
        _ => {
            let text = format!("{value:.2}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

fn clock(ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(ms).unwrap_or_default();
    at.strftime("%H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_with_numbers_that_read_well() {
        for (value, top) in
            [(0.0, 1.0), (0.04, 0.1), (0.7, 1.0), (1.0, 1.0), (1.1, 2.0), (3.0, 5.0), (61.0, 100.0)]
        {
            assert_eq!(round_up(value), top, "{value}");
        }
        for (value, text) in
            [(0.0, "0"), (0.5, "0.5"), (2.25, "2.25"), (25.0, "25"), (25_000.0, "25k"), (2e6, "2.0M")]
        {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_line_has_gaps_and_stays_inside() {
        let near = [(-5, Some(1.0)), (0, Some(0.0)), (20, None), (50, Some(5.0))];
        let far = [(60, None), (100, Some(9.0)), (500, Some(f64::MAX))];
        let lines = vec![Line { name: "sessions", points: near.into_iter().chain(far).collect() }];
        let plot = Plot { id: "x", title: "X", unit: "", since: 0, until: 100, lines };
        assert_eq!(plot.path(&plot.lines[0], 10.0), "M46.0 156.0L46.0 172.0M392.0 28.0L392.0 12.0");
        assert_eq!(plot.alone(&plot.lines[0], 10.0), [("219.0".to_owned(), "92.0".to_owned())]);
        let drawn = plot.draw().into_string();
        assert!(!drawn.contains("style") && drawn.contains("00:00 UTC"), "{drawn}");
    }
}
