//! The grammar of selectors, from the loosest binding to the tightest: OR, AND, NOT, `=` and `<>` and IS NULL, the other
//! comparisons, `+` and `-`, `*` and `/`, signs.

use super::builder::Builder;
use super::lexer::{Lexer, Symbol, Token};
use super::like::Like;
use super::number::{self, Number};
use super::program::{Constant, Op, Operator, Program, Relation, Search};
use super::{Dialect, MAX_DEPTH, MAX_PATTERN, SelectorError};

/// What is known of an expression before it is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Condition,
    Bool,
    Number,
    Text,
    /// A property, which may be of any type.
    Property,
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token<'a>,
    /// Where the token begins.
    at: usize,
    dialect: Dialect,
    builder: Builder,
    depth: usize,
}

type Parsed<T = Kind> = Result<T, SelectorError>;

const RESERVED: &[&str] = &["NOT", "AND", "OR", "BETWEEN", "IN", "IS", "NULL", "TRUE", "FALSE"];
const RESERVED_BY_JMS: &[&str] = &["LIKE", "ESCAPE"];
const RESERVED_FOR_TEXT: &[&str] = &["CONTAINS", "STARTSWITH", "ENDSWITH"];

const SEARCHES: &[(&str, Search)] =
    &[("CONTAINS", Search::Contains), ("STARTSWITH", Search::StartsWith), ("ENDSWITH", Search::EndsWith)];

pub(crate) fn parse(text: &str, dialect: Dialect) -> Parsed<Program> {
    let mut lexer = Lexer::new(text);
    let (token, at) = lexer.next()?;
    let mut parser = Parser { lexer, token, at, dialect, builder: Builder::new(), depth: 0 };
    let (kind, at) = (parser.disjunction()?, parser.at);
    parser.condition(kind, at)?;
    match parser.token {
        Token::End => Ok(parser.builder.finish(dialect)),
        _ => Err(parser.expected("an operator or the end")),
    }
}

impl Parser<'_> {
    fn advance(&mut self) -> Parsed<()> {
        (self.token, self.at) = self.lexer.next()?;
        Ok(())
    }

    fn expected(&self, expected: &'static str) -> SelectorError {
        SelectorError::Expected { at: self.at, expected }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.token, Token::Word(token) if token.eq_ignore_ascii_case(word))
    }

    /// Passes a word, if it stands here.
    fn word(&mut self, word: &str) -> Parsed<bool> {
        let found = self.is_word(word);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn symbol(&mut self, symbol: Symbol) -> Parsed<bool> {
        let found = self.token == Token::Symbol(symbol);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn text(&mut self) -> Parsed<Box<str>> {
        let Token::Text(text) = &mut self.token else { return Err(self.expected("a text in single quotes")) };
        let text = std::mem::take(text);
        self.advance()?;
        Ok(text)
    }

    /// Sees to it that what ends before `at` is a condition.
    fn condition(&mut self, kind: Kind, at: usize) -> Parsed<()> {
        match kind {
            Kind::Condition | Kind::Bool => Ok(()),
            Kind::Property => self.builder.reduce(Op::ToTruth, 1),
            Kind::Number | Kind::Text => {
                Err(SelectorError::Invalid { at, what: "what stands before is no condition" })
            }
        }
    }

    fn disjunction(&mut self) -> Parsed {
        let (mut kind, mut at) = (self.conjunction()?, self.at);
        while self.word("OR")? {
            self.condition(kind, at)?;
            let skip = self.builder.skip()?;
            let right = self.conjunction()?;
            at = self.at;
            self.condition(right, at)?;
            self.builder.reduce(Op::Or, 2)?;
            self.builder.land(skip, Op::SkipIfTrue);
            kind = Kind::Condition;
        }
        Ok(kind)
    }

    fn conjunction(&mut self) -> Parsed {
        let (mut kind, mut at) = (self.negation()?, self.at);
        while self.word("AND")? {
            self.condition(kind, at)?;
            let skip = self.builder.skip()?;
            let right = self.negation()?;
            at = self.at;
            self.condition(right, at)?;
            self.builder.reduce(Op::And, 2)?;
            self.builder.land(skip, Op::SkipIfFalse);
            kind = Kind::Condition;
        }
        Ok(kind)
    }

    fn negation(&mut self) -> Parsed {
        let mut times = 0usize;
        while self.word("NOT")? {
            self.builder.count()?;
            times += 1;
        }
        let (kind, at) = (self.equality()?, self.at);
        if times == 0 {
            return Ok(kind);
        }
        self.condition(kind, at)?;
        if times % 2 == 1 {
            self.builder.reduce(Op::Not, 1)?;
        }
        Ok(Kind::Condition)
    }

    fn equality(&mut self) -> Parsed {
        let from = self.builder.len();
        let mut kind = self.comparison()?;
        loop {
            if self.word("IS")? {
                self.is_null(from)?;
            } else if self.symbol(Symbol::Equal)? {
                self.comparison()?;
                self.builder.reduce(Op::Compare(Relation::Equal), 2)?;
            } else if self.symbol(Symbol::NotEqual)? {
                self.comparison()?;
                self.builder.reduce(Op::Compare(Relation::NotEqual), 2)?;
            } else {
                return Ok(kind);
            }
            kind = Kind::Condition;
        }
    }

    fn is_null(&mut self, from: usize) -> Parsed<()> {
        self.property_before(from)?;
        let negated = self.word("NOT")?;
        if !self.word("NULL")? {
            return Err(self.expected("NULL"));
        }
        self.builder.reduce(Op::IsNull { negated }, 1)
    }

    /// Before some operators only the name of a property may stand.
    fn property_before(&self, from: usize) -> Parsed<()> {
        match self.builder.is_property(from) {
            true => Ok(()),
            false => {
                Err(SelectorError::Invalid { at: self.at, what: "only a property's name can stand before" })
            }
        }
    }

    fn comparison(&mut self) -> Parsed {
        let from = self.builder.len();
        let mut kind = self.sum()?;
        while let Some(next) = self.compared(from, kind)? {
            kind = next;
        }
        Ok(kind)
    }

    /// What an operator makes of the expression before it; none, if none stands here.
    fn compared(&mut self, from: usize, kind: Kind) -> Parsed<Option<Kind>> {
        if let Some(relation) = self.relation()? {
            self.has_order(kind)?;
            let right = self.sum()?;
            self.has_order(right)?;
            self.builder.reduce(Op::Compare(relation), 2)?;
            return Ok(Some(Kind::Condition));
        }
        let negated = self.word("NOT")?;
        let search = self.search();
        if self.word("BETWEEN")? {
            self.between(kind, negated)?;
        } else if self.word("IN")? {
            self.property_before(from)?;
            self.list(negated)?;
        } else if self.word("LIKE")? {
            self.like(kind, negated)?;
        } else if let Some(how) = search {
            self.advance()?;
            let text = self.text()?;
            let text = self.builder.add_constant(Constant::Text(text));
            self.builder.reduce(Op::Search { how, text, negated }, 1)?;
        } else if negated {
            return Err(self.expected("BETWEEN, IN or LIKE"));
        } else {
            return Ok(None);
        }
        Ok(Some(Kind::Condition))
    }

    fn relation(&mut self) -> Parsed<Option<Relation>> {
        let relation = match self.token {
            Token::Symbol(Symbol::Less) => Relation::Less,
            Token::Symbol(Symbol::LessOrEqual) => Relation::LessOrEqual,
            Token::Symbol(Symbol::Greater) => Relation::Greater,
            Token::Symbol(Symbol::GreaterOrEqual) => Relation::GreaterOrEqual,
            _ => return Ok(None),
        };
        self.advance()?;
        Ok(Some(relation))
    }

    fn has_order(&self, kind: Kind) -> Parsed<()> {
        match kind {
            Kind::Number | Kind::Property => Ok(()),
            Kind::Condition | Kind::Bool | Kind::Text => {
                Err(SelectorError::Invalid { at: self.at, what: "only numbers have an order" })
            }
        }
    }

    fn search(&self) -> Option<Search> {
        let found = SEARCHES.iter().find(|(word, _)| self.is_word(word));
        found.filter(|_| self.dialect == Dialect::TextProperties).map(|(_, how)| *how)
    }

    fn between(&mut self, kind: Kind, negated: bool) -> Parsed<()> {
        self.has_order(kind)?;
        let low = self.sum()?;
        self.has_order(low)?;
        if !self.word("AND")? {
            return Err(self.expected("AND"));
        }
        let high = self.sum()?;
        self.has_order(high)?;
        self.builder.reduce(Op::Between { negated }, 3)
    }

    fn list(&mut self, negated: bool) -> Parsed<()> {
        if !self.symbol(Symbol::Open)? {
            return Err(self.expected("("));
        }
        let mut list = Vec::new();
        loop {
            self.builder.count()?;
            list.push(self.text()?);
            if !self.symbol(Symbol::Comma)? {
                break;
            }
        }
        if !self.symbol(Symbol::Close)? {
            return Err(self.expected(", or )"));
        }
        let list = self.builder.add_list(list);
        self.builder.reduce(Op::In { list, negated }, 1)
    }

    fn like(&mut self, kind: Kind, negated: bool) -> Parsed<()> {
        let at = self.at;
        if matches!(kind, Kind::Condition | Kind::Bool | Kind::Number) {
            return Err(SelectorError::Invalid { at, what: "only text is like a pattern" });
        }
        let text = self.text()?;
        if text.len() > MAX_PATTERN {
            return Err(SelectorError::Invalid { at, what: "the pattern is too long" });
        }
        let escape = self.escape()?;
        let trailing = SelectorError::Invalid { at, what: "nothing stands behind the pattern's escape" };
        let pattern = Like::parse(&text, escape).ok_or(trailing)?;
        let pattern = self.builder.add_pattern(pattern);
        self.builder.reduce(Op::Like { pattern, negated }, 1)
    }

    fn escape(&mut self) -> Parsed<Option<char>> {
        if !self.word("ESCAPE")? {
            return Ok(None);
        }
        let at = self.at;
        let text = self.text()?;
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (Some(escape), None) => Ok(Some(escape)),
            _ => Err(SelectorError::Invalid { at, what: "an escape is one character" }),
        }
    }

    fn sum(&mut self) -> Parsed {
        let mut kind = self.product()?;
        loop {
            let operator = match self.token {
                Token::Symbol(Symbol::Plus) => Operator::Plus,
                Token::Symbol(Symbol::Minus) => Operator::Minus,
                _ => return Ok(kind),
            };
            kind = self.calculation(kind, operator, Self::product)?;
        }
    }

    fn product(&mut self) -> Parsed {
        let mut kind = self.signed()?;
        loop {
            let operator = match self.token {
                Token::Symbol(Symbol::Times) => Operator::Times,
                Token::Symbol(Symbol::Over) => Operator::Over,
                _ => return Ok(kind),
            };
            kind = self.calculation(kind, operator, Self::signed)?;
        }
    }

    fn calculation(&mut self, left: Kind, operator: Operator, operand: fn(&mut Self) -> Parsed) -> Parsed {
        self.is_number(left)?;
        self.advance()?;
        let right = operand(self)?;
        self.is_number(right)?;
        self.builder.reduce(Op::Arithmetic(operator), 2)?;
        Ok(Kind::Number)
    }

    fn is_number(&self, kind: Kind) -> Parsed<()> {
        match kind {
            Kind::Number | Kind::Property => Ok(()),
            Kind::Condition | Kind::Bool | Kind::Text => {
                Err(SelectorError::Invalid { at: self.at, what: "only numbers can be reckoned with" })
            }
        }
    }

    fn signed(&mut self) -> Parsed {
        let (mut signs, mut negative) = (0usize, false);
        while let Token::Symbol(sign @ (Symbol::Plus | Symbol::Minus)) = self.token {
            self.builder.count()?;
            (signs, negative) = (signs + 1, negative != (sign == Symbol::Minus));
            self.advance()?;
        }
        if let Token::Number(literal) = self.token {
            return self.number(literal, negative);
        }
        let kind = self.primary()?;
        if signs > 0 {
            self.is_number(kind)?;
        }
        // Two signs make a number of a property, too, or nothing of a text.
        let negations = if negative {
            1
        } else if signs > 0 && kind == Kind::Property {
            2
        } else {
            0
        };
        for _ in 0..negations {
            self.builder.reduce(Op::Negate, 1)?;
        }
        Ok(if signs > 0 { Kind::Number } else { kind })
    }

    fn number(&mut self, literal: &str, negative: bool) -> Parsed {
        let at = self.at;
        let no_number = SelectorError::Invalid { at, what: "this is no number, or one out of range" };
        let constant = match number::parse(literal) {
            Some(Number::Integer(value)) if negative => Constant::Integer(value.wrapping_neg()),
            Some(Number::Integer(value)) => Constant::Integer(value),
            Some(Number::Float(value)) => Constant::Float(if negative { -value } else { value }),
            Some(Number::NegatedMinimum) if negative => Constant::Integer(i64::MIN),
            Some(Number::NegatedMinimum) | None => return Err(no_number),
        };
        self.advance()?;
        self.builder.constant(constant, at)?;
        Ok(Kind::Number)
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at;
        match self.token {
            Token::Symbol(Symbol::Open) => self.bracket(),
            Token::Text(_) => {
                let text = self.text()?;
                self.builder.constant(Constant::Text(text), at)?;
                Ok(Kind::Text)
            }
            Token::Quoted(name) if self.dialect == Dialect::Jms => self.property(name),
            Token::Word(word) if word.eq_ignore_ascii_case("TRUE") => self.bool(true),
            Token::Word(word) if word.eq_ignore_ascii_case("FALSE") => self.bool(false),
            Token::Word(word) if !self.is_reserved(word) => self.property(word),
            _ => Err(self.expected("a property's name, a value or a bracket")),
        }
    }

    fn is_reserved(&self, word: &str) -> bool {
        let more = match self.dialect {
            Dialect::Jms => RESERVED_BY_JMS,
            Dialect::TextProperties => RESERVED_FOR_TEXT,
        };
        RESERVED.iter().chain(more).any(|reserved| word.eq_ignore_ascii_case(reserved))
    }

    fn bracket(&mut self) -> Parsed {
        if self.depth == MAX_DEPTH {
            return Err(SelectorError::TooDeep { at: self.at });
        }
        self.depth += 1;
        self.advance()?;
        let kind = self.disjunction()?;
        self.depth -= 1;
        if self.symbol(Symbol::Close)? { Ok(kind) } else { Err(self.expected("an operator or )")) }
    }

    fn bool(&mut self, value: bool) -> Parsed {
        self.builder.constant(Constant::Bool(value), self.at)?;
        self.advance()?;
        Ok(Kind::Bool)
    }

    fn property(&mut self, name: &str) -> Parsed {
        if name.is_empty() {
            return Err(self.expected("a property's name"));
        }
        self.builder.load(name, self.at)?;
        self.advance()?;
        Ok(Kind::Property)
    }
}
