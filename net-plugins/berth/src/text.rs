//! Values as cells of tables and as facts.

/// Each on a line of its own; a dash for none.
pub(crate) fn joined(items: impl IntoIterator<Item = impl ToString>) -> String {
    let texts: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if texts.is_empty() { "-".to_owned() } else { texts.join("\n") }
}

/// A dash for none.
pub(crate) fn or_dash(item: Option<impl ToString>) -> String {
    item.map_or_else(|| "-".to_owned(), |item| item.to_string())
}

/// The words of what holds, in their order.
pub(crate) fn those_that_hold(words: &[(bool, &str)]) -> String {
    words.iter().filter(|(holds, _)| *holds).map(|(_, word)| *word).collect::<Vec<_>>().join(", ")
}
