//! One picture a trace: demand, pods and waits over time, ours and KPA's.

use std::fmt::Write;

use super::sim::Second;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 34.0;
const GAP: f64 = 34.0;
const POINTS: usize = 450;
const DEMAND: &str = "#777777";
const OURS: &str = "#0b6e4f";
const KPA: &str = "#c8553d";

struct Line<'a> {
    colour: &'a str,
    name: &'a str,
    values: Vec<f64>,
}

/// Seconds share a point; a peak is not lost.
fn points(seconds: &[Second], value: impl Fn(&Second) -> f64) -> Vec<f64> {
    let share = seconds.len().div_ceil(POINTS).max(1);
    seconds.chunks(share).map(|chunk| chunk.iter().map(&value).fold(0.0, f64::max)).collect()
}

pub fn picture(name: &str, ours: &[Second], kpa: &[Second]) -> String {
    let pods = |s: &Second| f64::from(s.pods);
    let wait = |s: &Second| f64::from(s.wait);
    let line = |colour, name, values| Line { colour, name, values };
    let panels = [
        ("requests a second", vec![line(DEMAND, "demand", points(ours, |s| f64::from(s.arrivals)))]),
        (
            "pods, starting ones too",
            vec![line(KPA, "KPA's defaults", points(kpa, pods)), line(OURS, "ours", points(ours, pods))],
        ),
        (
            "longest wait, s",
            vec![line(KPA, "KPA's defaults", points(kpa, wait)), line(OURS, "ours", points(ours, wait))],
        ),
    ];
    let height = TOP + panels.len() as f64 * (HEIGHT + GAP) + 10.0;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="{height}" viewBox="0 0 {0} {height}" font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/><text x="{LEFT}" y="16" font-weight="bold">{name}: pods start in 10 s, 200 ms a request</text>"#,
        LEFT + WIDTH + 20.0
    );
    let minutes = ours.len() as f64 / 60.0;
    for (index, (title, lines)) in panels.iter().enumerate() {
        panel(&mut svg, TOP + index as f64 * (HEIGHT + GAP), title, lines, minutes);
    }
    svg += "</svg>\n";
    svg
}

fn panel(svg: &mut String, top: f64, title: &str, lines: &[Line], minutes: f64) {
    let most = lines.iter().flat_map(|l| &l.values).copied().fold(0.0, f64::max).max(1e-3);
    let bottom = top + HEIGHT;
    let mut x = LEFT;
    let _ = write!(svg, r#"<text x="{x}" y="{}">{title}</text>"#, top - 5.0);
    x += 170.0;
    for line in lines {
        let _ = write!(svg, r#"<text x="{x}" y="{}" fill="{}">{}</text>"#, top - 5.0, line.colour, line.name);
        x += 110.0;
    }
    for share in [0.0, 0.5, 1.0] {
        let y = bottom - share * HEIGHT;
        let label = most * share;
        let digits = if most < 3.0 { 2 } else { usize::from(most < 20.0) };
        let _ = write!(
            svg,
            r##"<path d="M{LEFT} {y}h{WIDTH}" stroke="#dddddd"/><text x="{}" y="{}" text-anchor="end">{label:.digits$}</text>"##,
            LEFT - 6.0,
            y + 4.0
        );
    }
    for tick in 0..=4 {
        let share = f64::from(tick) / 4.0;
        let _ = write!(
            svg,
            r#"<text x="{:.0}" y="{}" text-anchor="middle">{:.0} min</text>"#,
            LEFT + share * WIDTH,
            bottom + 14.0,
            share * minutes
        );
    }
    for line in lines {
        let step = WIDTH / line.values.len().max(2) as f64;
        let mut path = String::new();
        for (at, value) in line.values.iter().enumerate() {
            let command = if at == 0 { 'M' } else { 'L' };
            let (x, y) = (LEFT + at as f64 * step, bottom - value / most * HEIGHT);
            let _ = write!(path, "{command}{x:.1} {y:.1}");
        }
        let _ = write!(svg, r#"<path d="{path}" fill="none" stroke="{}" stroke-width="1.3"/>"#, line.colour);
    }
}
