//! Bar charts as SVG, for people who would rather look than read.

use std::fmt::Write as _;

/// Bars of one unit under a title.
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) unit: String,
    pub(crate) bars: Vec<Bar>,
}

/// One bar.
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
}

/// Pixels.
const WIDTH: f64 = 760.0;
const NAMES: f64 = 230.0;
const ROW: f64 = 26.0;
const TITLE: f64 = 40.0;
/// Room for the figure behind the longest bar.
const FIGURE: f64 = 90.0;

/// The charts below each other, each on a scale of its own; the first bar of each is berth's and stands out. It reads on
/// a light and on a dark page.
pub(crate) fn svg(charts: &[Chart]) -> String {
    let whole: f64 = charts.iter().map(height).sum();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {whole}\" width=\"{WIDTH}\" height=\"{whole}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"14\" fill=\"#7a7a7a\">\n"
    );
    let mut top = 0.0;
    for chart in charts {
        draw(&mut svg, chart, top);
        top += height(chart);
    }
    svg.push_str("</svg>\n");
    svg
}

fn height(chart: &Chart) -> f64 {
    let bars = u32::try_from(chart.bars.len()).unwrap_or(u32::MAX);
    TITLE + f64::from(bars) * ROW + 12.0
}

fn draw(svg: &mut String, Chart { title, unit, bars }: &Chart, top: f64) {
    let longest = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    let _ =
        writeln!(svg, "<text x=\"0\" y=\"{:.0}\" font-weight=\"600\">{}</text>", top + 24.0, escaped(title));
    let mut y = top + TITLE;
    for (index, Bar { name, value }) in bars.iter().enumerate() {
        let length = (WIDTH - NAMES - FIGURE) * value / longest;
        let colour = if index == 0 { "#1f8a70" } else { "#a9b4c0" };
        let base = y + 16.0;
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{base:.0}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{NAMES}\" y=\"{:.0}\" width=\"{length:.1}\" height=\"18\" rx=\"2\" fill=\"{colour}\"/>\n\
             <text x=\"{:.1}\" y=\"{base:.0}\">{value:.1} {unit}</text>",
            NAMES - 10.0,
            escaped(name),
            y + 2.0,
            NAMES + length + 8.0,
        );
        y += ROW;
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values_and_names_are_text() {
        let bars =
            vec![Bar { name: "a<b".to_owned(), value: 10.0 }, Bar { name: "c".to_owned(), value: 40.0 }];
        let svg = svg(&[Chart { title: "t".to_owned(), unit: "ms".to_owned(), bars }]);
        assert!(
            svg.contains("a&lt;b") && svg.contains("width=\"110.0\"") && svg.contains("width=\"440.0\""),
            "{svg}"
        );
        assert!(svg.contains("10.0 ms") && svg.trim_end().ends_with("</svg>"));
    }
}
