//! What a statement may be, checked before it is planned.
//!
//! Planning takes time and stack that grow with the depth and the number of terms of a statement,
//! and cannot be interrupted. So the text is tokenized, which is linear, and refused if it is
//! beyond what any honest statement needs.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::error::Error;

/// The longest statement, in bytes.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;
/// The most operators (arithmetic, comparison, `AND`, `OR`, `NOT`, …) in a statement.
pub const OPERATORS_MAX: usize = 1_000;
/// The deepest nesting of parentheses and brackets.
pub const DEPTH_MAX: usize = 64;
/// The most subqueries and set operations.
pub const QUERIES_MAX: usize = 100;
/// The most commas: list items, arguments, columns.
pub const ITEMS_MAX: usize = 20_000;

/// Refuses a statement that is too large to be planned safely.
///
/// # Errors
/// [`Error::StatementLimit`] naming the limit, [`Error::Invalid`] if the text is no SQL at all.
pub fn check(sql: &str) -> Result<(), Error> {
    let limited = |what, found, limit, remedy| {
        if found <= limit {
            Ok(())
        } else {
            Err(Error::StatementLimit { what, found, limit, remedy })
        }
    };
    limited("bytes", sql.len(), TEXT_BYTES_MAX, "split it, or insert the data by an append")?;
    let tokens = Tokenizer::new(&GenericDialect {}, sql)
        .tokenize()
        .map_err(|error| Error::invalid(format!("the statement cannot be read: {error}")))?;
    let counted = count(&tokens);
    limited("operators", counted.operators, OPERATORS_MAX, "write IN (…) or a join instead")?;
    limited("levels of nesting", counted.depth, DEPTH_MAX, "take parts out into WITH")?;
    limited("queries", counted.queries, QUERIES_MAX, "split it")?;
    limited("list items", counted.items, ITEMS_MAX, "join with a table of them instead")
}

#[derive(Default)]
struct Counted {
    operators: usize,
    depth: usize,
    queries: usize,
    items: usize,
}

fn count(tokens: &[Token]) -> Counted {
    let mut counted = Counted::default();
    let mut depth = 0_usize;
    for token in tokens {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                depth += 1;
                counted.depth = counted.depth.max(depth);
            }
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
            Token::Comma => counted.items += 1,
            Token::Word(word) => match word.keyword {
                Keyword::SELECT | Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT => {
                    counted.queries += 1;
                }
                Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::BETWEEN
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::IS
                | Keyword::CASE
                | Keyword::WHEN
                | Keyword::JOIN
                | Keyword::COLLATE => counted.operators += 1,
                _ => {}
            },
            Token::Whitespace(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::Period
            | Token::SemiColon
            | Token::EOF => {}
            // Everything else is some operator: better counted once too often.
            _ => counted.operators += 1,
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn honest_statements_pass() {
        let many: Vec<String> = (0..10_000).map(|i| i.to_string()).collect();
        check(&format!("SELECT * FROM \"/a\" WHERE x IN ({})", many.join(","))).unwrap();
        check("SELECT a + b, count(*) FROM \"/a.series\" WHERE x > 1 AND y = 'z' GROUP BY 1")
            .unwrap();
    }

    #[test]
    fn statements_that_would_take_the_planner_down_are_refused() {
        let chain = |term: &str, with: &str| format!("SELECT {}", vec![term; 20_000].join(with));
        for sql in [
            chain("1", "+"),
            chain("1=1", " and "),
            chain("a", "||"),
            chain("1", " - - "),
            format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000)),
            format!("SELECT {}1", "NOT ".repeat(5_000)),
            format!("SELECT {}1{}", "[".repeat(500), "]".repeat(500)),
            vec!["SELECT 1"; 2_000].join(" UNION ALL "),
            format!("SELECT {}", "x".repeat(TEXT_BYTES_MAX)),
            format!("SELECT 1{}", "::int".repeat(2_000)),
        ] {
            let error = check(&sql);
            assert!(matches!(error, Err(Error::StatementLimit { .. })), "{error:?}");
        }
    }
}
