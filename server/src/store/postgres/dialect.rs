//! How a statement that was written for both databases is said to PostgreSQL.

/// `?1` is `$1`, and `user`, which is a word of the language, a name in quotes. A `CROSS JOIN` with a condition
/// only tells the embedded database in which order to look.
pub(super) fn translate(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len() + 32);
    let mut is_quoted = false;
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        is_quoted ^= c == '\'';
        let word = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        if is_quoted || word == 0 {
            text.push(if c == '?' && !is_quoted { '$' } else { c });
            rest = &rest[c.len_utf8()..];
            continue;
        }
        match &rest[..word] {
            "user" => text.push_str("\"user\""),
            "CROSS" => {}
            word => text.push_str(word),
        }
        rest = &rest[word..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::translate;

    #[test]
    fn statements_are_said_in_the_other_tongue() {
        for (sql, expected) in [
            ("SELECT user FROM members WHERE user = ?1", "SELECT \"user\" FROM members WHERE \"user\" = $1"),
            ("SELECT u.id, s.user FROM users u", "SELECT u.id, s.\"user\" FROM users u"),
            ("VALUES ('user?', 'don''t user', ?12)", "VALUES ('user?', 'don''t user', $12)"),
            ("FROM m CROSS JOIN e ON e.id = m.id", "FROM m  JOIN e ON e.id = m.id"),
        ] {
            assert_eq!(translate(sql), expected);
        }
    }
}
