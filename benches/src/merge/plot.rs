//! Draws how throughput grows: two panels in one SVG file, for light and dark pages.

use std::fmt::Write;

/// What was measured of one size.
pub(crate) struct Point {
    /// Changes, or documents.
    pub(crate) number: f64,
    /// Changes in a second.
    pub(crate) motet: f64,
    pub(crate) bare: f64,
}

pub(crate) struct Panel {
    pub(crate) title: &'static str,
    /// What is counted from left to right.
    pub(crate) axis: &'static str,
    pub(crate) points: Vec<Point>,
}

/// Width and height of a panel's field, and where it begins.
const FIELD: (f64, f64) = (300.0, 190.0);
const CORNER: (f64, f64) = (62.0, 52.0);

/// From one panel to the next.
const STEP: f64 = 390.0;

const HEAD: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 780 310" font-family="system-ui, sans-serif" font-size="12" role="img">
<title>Changes that a device receives, merges and stores in a second</title>
<style>
  text { fill: #1f2328 } .grid { stroke: #d0d7de } .motet { stroke: #0969da; fill: #0969da } .bare { stroke: #8c959f; fill: #8c959f }
  polyline.motet, polyline.bare { fill: none; stroke-width: 2 } .name { font-size: 13px; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .grid { stroke: #3d444d } .motet { stroke: #4493f8; fill: #4493f8 } .bare { stroke: #9198a1; fill: #9198a1 }
  }
</style>
"##;

pub(crate) fn draw(panels: &[Panel]) -> String {
    let mut svg = HEAD.to_owned();
    for (n, panel) in panels.iter().enumerate() {
        _ = writeln!(svg, r#"<g transform="translate({:.0} 0)">"#, n as f64 * STEP);
        panel.draw(&mut svg);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

impl Panel {
    fn draw(&self, svg: &mut String) {
        let (left, top) = CORNER;
        let (width, height) = FIELD;
        let most = self.points.iter().flat_map(|point| [point.motet, point.bare]).fold(1.0, f64::max);
        let step = step_of(most);
        let lines = (most / step).ceil();
        let y = |rate: f64| top + height * (1.0 - rate / (step * lines));
        let numbers = || self.points.iter().map(|point| point.number);
        let (first, last) = (numbers().fold(f64::MAX, f64::min), numbers().fold(1.0, f64::max));
        // Each is twice the one before, so they stand at equal distances.
        let x =
            |number: f64| left + width * (number / first).ln() / (last / first).ln().max(f64::MIN_POSITIVE);
        _ = writeln!(svg, r#"<text class="name" x="{left}" y="20">{}</text>"#, self.title);
        _ = writeln!(svg, r#"<text x="{left}" y="38">changes/s</text>"#);
        for line in 0..=lines as usize {
            let rate = line as f64 * step;
            let (at, right) = (y(rate), left + width);
            _ = writeln!(svg, r#"<line class="grid" x1="{left}" x2="{right}" y1="{at:.1}" y2="{at:.1}"/>"#);
            let label = left - 6.0;
            _ = writeln!(svg, r#"<text x="{label}" y="{:.1}" text-anchor="end">{rate:.0}</text>"#, at + 4.0);
        }
        let below = top + height + 18.0;
        for number in numbers() {
            _ = writeln!(
                svg,
                r#"<text x="{:.1}" y="{below}" text-anchor="middle">{number}</text>"#,
                x(number)
            );
        }
        let (middle, name) = (left + width / 2.0, below + 18.0);
        _ = writeln!(svg, r#"<text x="{middle}" y="{name}" text-anchor="middle">{}</text>"#, self.axis);
        let motet: fn(&Point) -> f64 = |point| point.motet;
        let bare: fn(&Point) -> f64 = |point| point.bare;
        // What they are stands above the field, where no line can cross it.
        let lines = [("motet", "Motet, stored", motet, 80.0), ("bare", "Automerge, in memory", bare, 180.0)];
        for (class, what, rate, place) in lines {
            let (dot, text) = (left + place, left + place + 7.0);
            _ = writeln!(svg, r#"<circle class="{class}" cx="{dot}" cy="34" r="3"/>"#);
            _ = writeln!(svg, r#"<text x="{text}" y="38">{what}</text>"#);
            let places: Vec<(f64, f64)> =
                self.points.iter().map(|point| (x(point.number), y(rate(point)))).collect();
            let line: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            _ = writeln!(svg, r#"<polyline class="{class}" points="{}"/>"#, line.join(" "));
            for (x, y) in &places {
                _ = writeln!(svg, r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="3"/>"#);
            }
        }
    }
}

/// A round distance between lines, of which there are three to eight.
fn step_of(most: f64) -> f64 {
    let power = 10f64.powf(most.log10().floor());
    [0.2, 0.5, 1.0, 2.0].map(|part| part * power).into_iter().find(|step| most / step <= 6.0).unwrap_or(power)
}
