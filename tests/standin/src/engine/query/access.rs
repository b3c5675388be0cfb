//! How rows are found: conditions go down to the sources they concern, keys are sought where
//! equalities or ranges allow it, joins on equalities hash, and a matching key order saves a sort.

use super::{
    host::{RowSource, SourceKey},
    plan::{
        Conjunct, From, Indexed, Join, JoinKind, Leaf, LeafKind, Method, SOURCES, Seek, SelectPlan,
        SortBy,
    },
};
use crate::{
    engine::expr::{
        bound::{Bound, Comparison, Node, Predicate},
        types::{self, Family},
    },
    value::SqlType,
};

/// The sources of this query an expression looks at; None when it contains a subquery, whose needs
/// are not looked into.
pub fn simple_mask(expr: &Bound) -> Option<u128> {
    Some(match &expr.node {
        Node::Const(_) | Node::Variable(_) => 0,
        Node::Column { depth: 0, slot, .. } => 1 << slot,
        Node::Column { .. } => 0,
        Node::Cast { expr, style, .. } => {
            simple_mask(expr)? | style.as_ref().map_or(Some(0), |s| simple_mask(s))?
        }
        Node::Decimal { left, right, .. }
        | Node::Arithmetic { left, right, .. }
        | Node::Bits { left, right, .. }
        | Node::DateArithmetic { left, right, .. }
        | Node::Concat { left, right } => simple_mask(left)? | simple_mask(right)?,
        Node::Negate(inner) | Node::BitNot(inner) => simple_mask(inner)?,
        Node::FirstOf(list) | Node::Call { args: list, .. } | Node::Host { args: list, .. } => {
            list.iter().try_fold(0, |mask, e| Some(mask | simple_mask(e)?))?
        }
        // conditions inside are not looked into
        Node::Case { .. } | Node::Subquery(_) => return None,
    })
}

/// Whether an expression looks at a row of an enclosing query.
fn looks_outside(expr: &Bound) -> bool {
    match &expr.node {
        Node::Const(_) | Node::Variable(_) => false,
        Node::Column { depth, .. } => *depth > 0,
        Node::Cast { expr, .. } => looks_outside(expr),
        Node::Decimal { left, right, .. }
        | Node::Arithmetic { left, right, .. }
        | Node::Bits { left, right, .. }
        | Node::DateArithmetic { left, right, .. }
        | Node::Concat { left, right } => looks_outside(left) || looks_outside(right),
        Node::Negate(inner) | Node::BitNot(inner) => looks_outside(inner),
        Node::FirstOf(list) | Node::Call { args: list, .. } | Node::Host { args: list, .. } => {
            list.iter().any(looks_outside)
        }
        Node::Case { .. } | Node::Subquery(_) => true,
    }
}

/// `FROM a, b`
pub fn cross(left: From, right: From) -> From {
    From::Join(Box::new(Join {
        kind: JoinKind::Inner,
        apply: false,
        left,
        right,
        on: Vec::new(),
        method: Method::Kept,
    }))
}

/// Decides how a SELECT gets its rows.
pub fn choose(plan: &mut SelectPlan, conditions: Vec<Conjunct>, number: usize) {
    let Some(mut from) = plan.from.take() else {
        plan.filter = conditions.into_iter().map(|c| c.predicate).collect();
        return;
    };
    let (startup, mut conditions): (Vec<_>, Vec<_>) =
        conditions.into_iter().partition(|c| c.mask == 0);
    plan.startup = startup.into_iter().map(|c| c.predicate).collect();

    // a correlated query without an index to ask keeps its rows in a hash table instead of reading
    // them again and again
    let correlated = conditions.iter().any(|c| c.outer);
    if correlated
        && !depends_on_outside(&from)
        && !seekable_leaf(&from, &conditions)
        && conditions.iter().any(|c| correlation(c).is_some())
    {
        let (mut keys, mut probes, mut null_safe, mut collations) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut residual, mut inner) = (Vec::new(), Vec::new());
        for condition in conditions.drain(..) {
            if !condition.outer {
                inner.push(condition);
                continue;
            }
            match correlation(&condition) {
                Some((key, probe, safe, collation)) => {
                    keys.push(key);
                    probes.push(probe);
                    null_safe.push(safe);
                    collations.push(Some(collation));
                }
                None => residual.push(condition),
            }
        }
        let left = place(&mut from, inner);
        residual.extend(left);
        finish(&mut from);
        plan.from = Some(From::Indexed(Box::new(Indexed {
            id: number,
            inner: from,
            keys,
            probes,
            null_safe,
            collations,
            residual,
        })));
        return;
    }

    let left = place(&mut from, conditions);
    plan.filter = left.into_iter().map(|c| c.predicate).collect();
    finish(&mut from);
    if plan.group.is_none()
        && plan.windows.is_empty()
        && !plan.distinct
        && !plan.tail.order.is_empty()
    {
        plan.presorted = order_by_key(plan.tail.order.as_slice(), &plan.projection, &mut from);
    }
    plan.from = Some(from);
}

/// An equality of something here with something outside: (here, outside, NULL equals NULL).
fn correlation(condition: &Conjunct) -> Option<(Bound, Bound, bool, crate::value::Collation)> {
    let (left, right, safe, collation) = match &condition.predicate {
        Predicate::Compare { op: Comparison::Eq, left, right, collation } => {
            (left, right, false, *collation)
        }
        Predicate::Distinct { equal: true, left, right, collation } => {
            (left, right, true, *collation)
        }
        _ => return None,
    };
    let (lm, rm) = condition.sides?;
    if lm != 0 && rm == 0 && !looks_outside(left) {
        Some((left.clone(), right.clone(), safe, collation))
    } else if rm != 0 && lm == 0 && !looks_outside(right) {
        Some((right.clone(), left.clone(), safe, collation))
    } else {
        None
    }
}

/// Whether a FROM needs the enclosing row itself.
fn depends_on_outside(from: &From) -> bool {
    match from {
        From::Leaf(leaf) => match &leaf.kind {
            LeafKind::Table { .. } => leaf.filter.iter().any(|c| c.outer),
            LeafKind::Function { args, .. } => args.iter().any(looks_outside),
            // a derived table may refer outside; its plan is not searched
            LeafKind::Derived { .. } | LeafKind::Work(_) => true,
        },
        From::Join(join) => {
            join.apply
                || depends_on_outside(&join.left)
                || depends_on_outside(&join.right)
                || join.on.iter().any(|c| c.outer)
        }
        From::Indexed(_) => true,
    }
}

fn seekable_leaf(from: &From, conditions: &[Conjunct]) -> bool {
    let From::Leaf(Leaf { slot, kind: LeafKind::Table { source, .. }, .. }) = from else {
        return false;
    };
    let all: Vec<&Conjunct> = conditions.iter().collect();
    find_seek(&**source, *slot, &all, 0).is_some_and(|s| !s.prefix.is_empty())
}

/// Puts conditions as deep as they may go; gives back those that found no place.
fn place(from: &mut From, conditions: Vec<Conjunct>) -> Vec<Conjunct> {
    let mask = from.mask();
    let (mine, rest): (Vec<_>, Vec<_>) =
        conditions.into_iter().partition(|c| c.mask != 0 && c.mask & !mask == 0);
    if mine.is_empty() && !matches!(from, From::Join(_)) {
        return rest;
    }
    let mut rest = rest;
    match from {
        From::Leaf(leaf) => leaf.filter.extend(mine),
        From::Join(join) => match join.kind {
            JoinKind::Inner => {
                let mut all = std::mem::take(&mut join.on);
                all.extend(mine);
                let all = place(&mut join.left, all);
                // what APPLY's right side depends on changes with every row: its conditions are
                // asked above it
                let all = if join.apply { all } else { place(&mut join.right, all) };
                join.on = all;
            }
            JoinKind::Left => {
                rest.extend(place(&mut join.left, mine));
                if !join.apply {
                    let right = join.right.mask();
                    let (down, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut join.on)
                        .into_iter()
                        .partition(|c| c.mask != 0 && c.mask & !right == 0);
                    join.on = stay;
                    join.on.extend(place(&mut join.right, down));
                }
            }
            JoinKind::Full => rest.extend(mine),
        },
        From::Indexed(_) => rest.extend(mine),
    }
    // joins below that got nothing from above still have conditions of their own to place
    if let From::Join(join) = from
        && join.kind == JoinKind::Full
    {
        settle(&mut join.left);
        settle(&mut join.right);
    } else if let From::Join(join) = from
        && (join.kind == JoinKind::Left || join.apply)
    {
        settle(&mut join.right);
    }
    rest
}

fn settle(from: &mut From) {
    let left = place(from, Vec::new());
    debug_assert!(left.is_empty());
}

/// Chooses seeks and join methods, bottom up.
fn finish(from: &mut From) {
    match from {
        From::Leaf(leaf) => seek_leaf(leaf, 0),
        From::Join(join) => {
            finish(&mut join.left);
            if join.apply {
                finish(&mut join.right);
                join.method = Method::Loop;
                return;
            }
            finish(&mut join.right);
            choose_method(join);
        }
        From::Indexed(_) => {}
    }
}

fn seek_leaf(leaf: &mut Leaf, available: u128) {
    if let LeafKind::Table { source, seek } = &mut leaf.kind {
        let all: Vec<&Conjunct> = leaf.filter.iter().collect();
        *seek = find_seek(&**source, leaf.slot, &all, available);
    }
}

fn choose_method(join: &mut Join) {
    let (lm, rm) = (join.left.mask(), join.right.mask());
    let (left_rows, right_rows) = (join.left.estimated_rows(), join.right.estimated_rows());
    // a seek costs about as much as reading four rows
    let seek_cost = |rows: u64| rows.saturating_mul(4);
    let scan_cost = left_rows.saturating_add(right_rows);
    if join.kind != JoinKind::Full
        && seek_cost(left_rows) < scan_cost
        && make_seeking(&mut join.right, &join.on, lm)
    {
        join.method = Method::Loop;
        return;
    }
    if join.kind == JoinKind::Inner
        && seek_cost(right_rows) < scan_cost
        && make_seeking(&mut join.left, &join.on, rm)
    {
        std::mem::swap(&mut join.left, &mut join.right);
        join.method = Method::Loop;
        return;
    }
    // the smaller side is kept
    if join.kind == JoinKind::Inner && left_rows < right_rows {
        std::mem::swap(&mut join.left, &mut join.right);
    }
    join.method = hash_of(join).unwrap_or(Method::Kept);
}

/// The hash method for the sides as they stand now.
fn hash_of(join: &Join) -> Option<Method> {
    let (lm, rm) = (join.left.mask(), join.right.mask());
    let (mut left, mut right, mut null_safe) = (Vec::new(), Vec::new(), Vec::new());
    for condition in &join.on {
        let (l, r, safe, collation) = match &condition.predicate {
            Predicate::Compare { op: Comparison::Eq, left, right, collation } => {
                (left, right, false, *collation)
            }
            Predicate::Distinct { equal: true, left, right, collation } => {
                (left, right, true, *collation)
            }
            _ => continue,
        };
        let Some((a, b)) = condition.sides else { continue };
        let (l, r) = if a != 0 && b != 0 && a & !lm == 0 && b & !rm == 0 {
            (l, r)
        } else if a != 0 && b != 0 && a & !rm == 0 && b & !lm == 0 {
            (r, l)
        } else {
            continue;
        };
        for (side, list) in [(l, &mut left), (r, &mut right)] {
            let mut side = side.clone();
            side.ty = side.ty.under(collation);
            list.push(side);
        }
        null_safe.push(safe);
    }
    (!left.is_empty()).then_some(Method::Hash { left, right, null_safe })
}

/// Lets a table seek by values of the other side of a join, when its keys allow.
fn make_seeking(from: &mut From, on: &[Conjunct], available: u128) -> bool {
    let From::Leaf(leaf) = from else { return false };
    let LeafKind::Table { source, seek } = &mut leaf.kind else { return false };
    let all: Vec<&Conjunct> = leaf.filter.iter().chain(on.iter()).collect();
    let Some(found) = find_seek(&**source, leaf.slot, &all, available) else { return false };
    let uses_other_side = found.prefix.iter().any(|(e, _)| simple_mask(e).is_none_or(|m| m != 0));
    if !uses_other_side {
        return false;
    }
    *seek = Some(found);
    true
}

/// `column op expression`, as a key of the column can use it.
struct Usable<'c> {
    column: usize,
    op: Comparison,
    value: &'c Bound,
    null_safe: bool,
}

/// The column of a source under conversions that change nothing about order and equality.
fn bare_column(expr: &Bound, slot: usize) -> Option<(usize, SqlType)> {
    match &expr.node {
        Node::Column { depth: 0, slot: own, column } if usize::from(*own) == slot => {
            Some((usize::from(*column), expr.ty))
        }
        Node::Cast { expr: inner, style: None, attempt: false, explicit: false } => {
            let (column, ty) = bare_column(inner, slot)?;
            let (from, to) = (types::family(inner.ty), types::family(expr.ty));
            let harmless = match (from, to) {
                (
                    Family::Integer
                    | Family::Text
                    | Family::Decimal
                    | Family::Money
                    | Family::Binary,
                    _,
                ) if from == to => true,
                (Family::Integer, Family::Decimal) | (Family::Bit, Family::Integer) => true,
                _ => false,
            };
            harmless.then_some((column, ty))
        }
        _ => None,
    }
}

fn usable<'c>(
    condition: &'c Conjunct,
    slot: usize,
    available: u128,
    source: &dyn RowSource,
) -> Option<Usable<'c>> {
    let (op, left, right, null_safe, collation) = match &condition.predicate {
        Predicate::Compare { op, left, right, collation } if *op != Comparison::Ne => {
            (*op, left, right, false, *collation)
        }
        Predicate::Distinct { equal: true, left, right, collation } => {
            (Comparison::Eq, left, right, true, *collation)
        }
        _ => return None,
    };
    let (lm, rm) = condition.sides?;
    let fits = |mask: u128| mask & !available == 0;
    let (column, op, value) =
        if let Some((column, _)) = bare_column(left, slot).filter(|_| fits(rm)) {
            (column, op, right)
        } else if let Some((column, _)) = bare_column(right, slot).filter(|_| fits(lm)) {
            (column, op.flipped(), left)
        } else {
            return None;
        };
    let ty = source.columns()[column].ty;
    if types::is_text(ty) && ty.compared_by() != Some(collation) {
        return None;
    }
    // a range bound of another family or scale might be rounded to the wrong side
    let same = types::family(value.ty) == types::family(ty)
        && !matches!(types::family(ty), Family::Decimal | Family::Float | Family::Time);
    if op != Comparison::Eq && !(same || value.ty == ty) {
        return None;
    }
    Some(Usable { column, op, value, null_safe })
}

fn find_seek(
    source: &dyn RowSource,
    slot: usize,
    conditions: &[&Conjunct],
    available: u128,
) -> Option<Seek> {
    let usable: Vec<Usable<'_>> =
        conditions.iter().filter_map(|c| usable(c, slot, available, source)).collect();
    if usable.is_empty() {
        return None;
    }
    let mut best: Option<(u32, Seek)> = None;
    for (number, key) in source.keys().iter().enumerate() {
        let Some((score, seek)) = try_key(number, key, &usable) else { continue };
        if best.as_ref().is_none_or(|(known, _)| score > *known) {
            best = Some((score, seek));
        }
    }
    best.map(|(_, seek)| seek)
}

fn try_key(number: usize, key: &SourceKey, usable: &[Usable<'_>]) -> Option<(u32, Seek)> {
    let mut seek = Seek { key: number, ..Seek::default() };
    for (column, _) in &key.columns {
        if let Some(found) = usable.iter().find(|u| u.column == *column && u.op == Comparison::Eq) {
            seek.prefix.push((found.value.clone(), found.null_safe));
            continue;
        }
        for u in usable.iter().filter(|u| u.column == *column) {
            match u.op {
                Comparison::Gt | Comparison::Ge if seek.lower.is_none() => {
                    seek.lower = Some((u.value.clone(), u.op == Comparison::Ge))
                }
                Comparison::Lt | Comparison::Le if seek.upper.is_none() => {
                    seek.upper = Some((u.value.clone(), u.op == Comparison::Le))
                }
                _ => {}
            }
        }
        break;
    }
    let depth = u32::try_from(seek.prefix.len()).unwrap_or(0);
    let ranged = seek.lower.is_some() || seek.upper.is_some();
    if depth == 0 && !ranged {
        return None;
    }
    let whole = key.unique && seek.prefix.len() == key.columns.len();
    let score = depth * 4 + u32::from(ranged) * 2 + u32::from(whole) * 100 + u32::from(number == 0);
    Some((score, seek))
}

/// Lets a single table be read in the order asked for, when one of its keys has that order.
fn order_by_key(order: &[super::plan::SortKey], projection: &[Bound], from: &mut From) -> bool {
    let From::Leaf(leaf) = from else { return false };
    let LeafKind::Table { source, seek } = &mut leaf.kind else { return false };
    let mut wanted = Vec::with_capacity(order.len());
    for item in order {
        let expr = match &item.by {
            SortBy::Output(at) => &projection[*at],
            SortBy::Expr(expr) => expr,
        };
        match expr.node {
            Node::Column { depth: 0, slot, column }
                if usize::from(slot) == leaf.slot && usize::from(slot) >= SOURCES =>
            {
                let column = usize::from(column);
                // an ordering under another collation is another order
                if types::is_text(expr.ty)
                    && expr.ty.compared_by() != source.columns()[column].ty.compared_by()
                {
                    return false;
                }
                wanted.push((column, item.descending));
            }
            _ => return false,
        }
    }
    let keys = source.keys();
    let candidates: Vec<usize> = match seek {
        Some(seek) => vec![seek.key],
        // reading along another index costs a look-up per row: only the clustered key streams for
        // free
        None => vec![0],
    };
    for number in candidates {
        let Some(key) = keys.get(number) else { continue };
        let bound = seek.as_ref().map_or(0, |s| s.prefix.len());
        let mut rest: &[(usize, bool)] = &wanted;
        let mut reverse = None;
        let mut matched = true;
        for (at, (column, descending)) in key.columns.iter().enumerate() {
            let Some(((first, direction), tail)) = rest.split_first() else { break };
            if first == column {
                if at >= bound {
                    let turned = direction != descending;
                    if *reverse.get_or_insert(turned) != turned {
                        matched = false;
                        break;
                    }
                }
                rest = tail;
            } else if at >= bound {
                matched = false;
                break;
            }
        }
        // beyond a whole unique key nothing can tie
        if matched && (rest.is_empty() || key.unique) && (rest.is_empty() || reverse.is_some()) {
            let reverse = reverse.unwrap_or(false);
            match seek {
                Some(seek) => seek.reverse = reverse,
                None => *seek = Some(Seek { key: number, reverse, ..Seek::default() }),
            }
            return true;
        }
    }
    false
}
