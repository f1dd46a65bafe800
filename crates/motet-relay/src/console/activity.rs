//! What the relay did over the last hours, for the operator: plots, and the same numbers in a table.

use std::time::{Duration, SystemTime};

use axum::response::Response;
use maud::{Markup, html};

use super::layout::Column;
use super::plot::{Line, Plot};
use super::samples::Sample;
use super::visit::Visit;
use super::{State, layout};

/// What may be chosen: as it stands in the address, how long that is, and in how many parts it is shown.
const SPANS: [(&str, &str, Duration, usize); 3] = [
    ("1h", "1 hour", Duration::from_secs(3_600), 60),
    ("6h", "6 hours", Duration::from_secs(6 * 3_600), 72),
    ("24h", "24 hours", Duration::from_secs(24 * 3_600), 96),
];

pub(super) fn show(state: &State, visit: &Visit) -> Response {
    let asked = visit.query.get("span");
    let (code, _, span, parts) = SPANS.into_iter().find(|(code, ..)| *code == asked).unwrap_or(SPANS[0]);
    let samples = state.samples.within(span, parts);
    let body = html! {
        nav aria-label="Time shown" class="spans" {
            ul {
                @for (other, title, ..) in SPANS {
                    li {
                        a href=(visit.link(&format!("activity?span={other}"))) aria-current=[(other == code).then_some("true")] { (title) }
                    }
                }
            }
        }
        @if samples.is_empty() {
            p { "Nothing is known yet. The relay looks at its numbers once a minute, and keeps them for a day or until it is stopped." }
        } @else {
            div class="plots" { (plots(&samples, span)) }
            h2 { "The same numbers" }
            (table(&samples))
        }
    };
    layout::page(visit, "Activity", &body)
}

fn plots(samples: &[Sample], span: Duration) -> Markup {
    let line = |name, of: &dyn Fn(&Sample) -> Option<f64>| Line {
        name,
        points: samples.iter().map(|sample| (layout::ms(sample.at), of(sample))).collect(),
    };
    let until = layout::ms(SystemTime::now());
    let since = until - i64::try_from(span.as_millis()).unwrap_or(0);
    let plot = |id, title, unit, lines| Plot { id, title, unit, since, until, lines };
    let plots = [
        plot("sessions", "Live sessions", "", vec![line("sessions", &|sample| Some(sample.sessions as f64))]),
        plot(
            "entries",
            "Entries received",
            "entries a second",
            vec![line("entries", &|sample| Some(sample.entries_per_second()))],
        ),
        plot(
            "durable",
            "Time until a push is durable",
            "milliseconds",
            vec![
                line("median (p50)", &|sample| sample.durable_within(0.5).map(|s| s * 1_000.0)),
                line("99 of 100 (p99)", &|sample| sample.durable_within(0.99).map(|s| s * 1_000.0)),
            ],
        ),
        plot("errors", "Errors sent to devices", "", vec![line("errors", &|s| Some(s.errors as f64))]),
    ];
    html! { @for plot in &plots { (plot.draw()) } }
}

fn table(samples: &[Sample]) -> Markup {
    let ms = |part: Option<f64>| part.map_or_else(|| "–".into(), |s| format!("{:.1} ms", s * 1_000.0));
    let rows = html! {
        @for sample in samples.iter().rev() {
            tr {
                th scope="row" { (layout::time(layout::ms(sample.at))) }
                td class="number" { (sample.sessions) }
                td class="number" { (format!("{:.2}", sample.entries_per_second())) }
                td class="number" { (ms(sample.durable_within(0.5))) }
                td class="number" { (ms(sample.durable_within(0.99))) }
                td class="number" { (sample.errors) }
            }
        }
    };
    let head = [
        Column::Text("Until"),
        Column::Number("Sessions"),
        Column::Number("Entries a second"),
        Column::Number("Durable, p50"),
        Column::Number("Durable, p99"),
        Column::Number("Errors"),
    ];
    layout::table("Numbers of the plots", &head, &rows)
}
