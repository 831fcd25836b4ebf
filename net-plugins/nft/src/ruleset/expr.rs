//! Short constructors over the `nftables` crate's types, so that rules read like rules.

use std::borrow::Cow;
use std::collections::HashSet;

use nftables::expr::{
    BinaryOperation, CT, Expression, Fib, FibFlag, FibResult, Map, Meta, MetaKey, NamedExpression, Payload,
    PayloadField, Prefix,
};
use nftables::stmt::{
    AnonymousCounter, Counter, JumpTarget, Mangle, Match, NAT, NATFamily, Operator, Statement,
};

use crate::schema::SetDef;

pub(super) type Expr = Expression<'static>;
pub(super) type Stmt = Statement<'static>;

pub(super) fn text(value: impl Into<Cow<'static, str>>) -> Expr {
    Expression::String(value.into())
}

pub(super) fn number(value: u32) -> Expr {
    Expression::Number(value)
}

pub(super) fn set_ref(set: &SetDef) -> Expr {
    text(format!("@{}", set.name))
}

pub(super) fn meta(key: MetaKey) -> Expr {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

pub(super) fn iif() -> Expr {
    meta(MetaKey::Iifname)
}

pub(super) fn oif() -> Expr {
    meta(MetaKey::Oifname)
}

pub(super) fn l4proto() -> Expr {
    meta(MetaKey::L4proto)
}

/// `protocol field`, for instance `ip saddr`.
pub(super) fn payload(protocol: &'static str, field: &'static str) -> Expr {
    let field = PayloadField { protocol: protocol.into(), field: field.into() };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

pub(super) fn ct(key: &'static str) -> Expr {
    Expression::Named(NamedExpression::CT(CT { key: key.into(), family: None, dir: None }))
}

/// What the flow's first packet carried, before any translation.
pub(super) fn ct_original(key: &'static str) -> Expr {
    let dir = Some(nftables::expr::CTDir::Original);
    Expression::Named(NamedExpression::CT(CT { key: key.into(), family: None, dir }))
}

pub(super) fn concat(parts: impl IntoIterator<Item = Expr>) -> Expr {
    Expression::Named(NamedExpression::Concat(parts.into_iter().collect()))
}

pub(super) fn prefix(addr: &'static str, len: u32) -> Expr {
    Expression::Named(NamedExpression::Prefix(Prefix { addr: Box::new(text(addr)), len }))
}

/// An anonymous set.
pub(super) fn any_of(items: impl IntoIterator<Item = Expr>) -> Expr {
    let items = items.into_iter().map(nftables::expr::SetItem::Element).collect();
    Expression::Named(NamedExpression::Set(items))
}

pub(super) fn and(left: Expr, right: Expr) -> Expr {
    Expression::BinaryOperation(Box::new(BinaryOperation::AND(left, right)))
}

pub(super) fn or(left: Expr, right: Expr) -> Expr {
    Expression::BinaryOperation(Box::new(BinaryOperation::OR(vec![left, right])))
}

/// `key map @set`.
pub(super) fn lookup(key: Expr, set: &SetDef) -> Expr {
    Expression::Named(NamedExpression::Map(Box::new(Map { key, data: set_ref(set) })))
}

/// `fib daddr type`.
pub(super) fn fib_daddr_type() -> Expr {
    let flags = HashSet::from([FibFlag::Daddr]);
    Expression::Named(NamedExpression::Fib(Fib { result: FibResult::Type, flags }))
}

fn matching(left: Expr, op: Operator, right: Expr) -> Stmt {
    Statement::Match(Match { left, right, op })
}

pub(super) fn eq(left: Expr, right: Expr) -> Stmt {
    matching(left, Operator::EQ, right)
}

pub(super) fn ne(left: Expr, right: Expr) -> Stmt {
    matching(left, Operator::NEQ, right)
}

/// Whether a bit field has one of the named bits.
pub(super) fn has(left: Expr, flags: impl IntoIterator<Item = &'static str>) -> Stmt {
    let mut flags: Vec<Expr> = flags.into_iter().map(text).collect();
    let right = if flags.len() == 1 { flags.remove(0) } else { Expression::List(flags) };
    matching(left, Operator::IN, right)
}

pub(super) fn within(key: Expr, set: &SetDef) -> Stmt {
    eq(key, set_ref(set))
}

pub(super) fn outside(key: Expr, set: &SetDef) -> Stmt {
    ne(key, set_ref(set))
}

pub(super) fn count() -> Stmt {
    Statement::Counter(Counter::Anonymous(Some(AnonymousCounter::default())))
}

pub(super) fn accept() -> Stmt {
    Statement::Accept(None)
}

pub(super) fn drop() -> Stmt {
    Statement::Drop(None)
}

pub(super) fn untracked() -> Stmt {
    Statement::Notrack
}

pub(super) fn back() -> Stmt {
    Statement::Return(None)
}

pub(super) fn goto(chain: &'static str) -> Stmt {
    Statement::Goto(JumpTarget { target: chain.into() })
}

pub(super) fn jump(chain: &'static str) -> Stmt {
    Statement::Jump(JumpTarget { target: chain.into() })
}

pub(super) fn masquerade() -> Stmt {
    Statement::Masquerade(None)
}

pub(super) fn dnat(family: NATFamily, addr: Expr, port: Option<Expr>) -> Stmt {
    Statement::DNAT(Some(NAT { addr: Some(addr), family: Some(family), port, flags: None }))
}

pub(super) fn set_mark(value: Expr) -> Stmt {
    Statement::Mangle(Mangle { key: meta(MetaKey::Mark), value })
}
