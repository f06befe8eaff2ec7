//! For tests: the metrics that docs/metrics.md lists, and those of a text that Prometheus scrapes.

use std::collections::{BTreeMap, BTreeSet};

/// By name as it is queried (a counter's ends in `_total`): type and labels.
pub type Listed = BTreeMap<String, (String, BTreeSet<String>)>;

/// The rows of the table below `heading`.
pub fn listed(page: &str, heading: &str) -> Listed {
    let section = page.split_once(heading).unwrap().1;
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let word = |cell: &str| cell.trim().trim_matches('`').to_string();
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        let labels = cells[3].split(',').map(word).filter(|label| !label.is_empty()).collect();
        (word(cells[1]), (word(cells[2]), labels))
    })
    .collect()
}

/// The families of an OpenMetrics text; labels that all of them bear are left out.
pub fn served(text: &str, common: &[&str]) -> Listed {
    let mut families = Listed::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let name = if kind == "counter" { format!("{name}_total") } else { name.into() };
        families.insert(name, (kind.into(), BTreeSet::new()));
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((sample, rest)) = line.split_once('{') else { continue };
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| sample.strip_suffix(end));
        let name = family.filter(|name| families.contains_key(*name)).unwrap_or(sample);
        let labels = rest.rsplit_once('}').unwrap().0.split(',');
        let labels = labels.map(|label| label.split('=').next().unwrap().to_string());
        let (_, known) = families.get_mut(name).unwrap();
        known.extend(labels.filter(|label| label != "le" && !common.contains(&label.as_str())));
    }
    families
}
