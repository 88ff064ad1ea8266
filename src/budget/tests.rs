use std::task::Wake;

use super::*;

const LIMIT: usize = 256 << 10;

/// A connection: its account, and how often it was woken.
struct Connection {
    account: Account,
    woken: Arc<Count>,
}

#[derive(Debug, Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

impl Connection {
    fn of(budget: &Arc<MessageBudget>) -> Self {
        let account = Account::new(Some(Arc::clone(budget)));
        Self { account, woken: Arc::default() }
    }

    fn many<const N: usize>(budget: &Arc<MessageBudget>) -> [Self; N] {
        std::array::from_fn(|_| Self::of(budget))
    }

    fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.woken))
    }

    fn waits(&mut self, is_urgent: bool) -> bool {
        let waker = self.waker();
        self.account.wait(is_urgent, &waker)
    }

    fn hold(&mut self, held: usize) {
        let waker = self.waker();
        self.account.count(held, &waker);
        self.settle();
    }

    fn lose_patience(&mut self) {
        self.account.lose_patience();
        self.settle();
    }

    /// It has read what it waited for.
    fn go_on(&mut self) {
        self.account.stop_waiting();
        self.settle();
    }

    /// What `Shared::with` does after a step.
    fn settle(&mut self) {
        if let Some((budget, owed)) = self.account.take_owed() {
            budget.settle(owed);
        }
    }

    fn woken(&self) -> usize {
        self.woken.0.load(Relaxed)
    }
}

fn woken(connections: &[Connection]) -> Vec<usize> {
    connections.iter().map(Connection::woken).collect()
}

#[test]
fn what_is_free_is_not_counted_and_the_rest_in_steps() {
    let budget = MessageBudget::new(LIMIT);
    let mut connection = Connection::of(&budget);
    for (held, counted) in [
        (0, 0),
        (FREE, 0),
        (FREE + 1, STEP),
        (FREE + STEP, STEP),
        (FREE + STEP + 1, 2 * STEP),
        (1 << 20, (1 << 20) - FREE),
        (FREE, 0),
    ] {
        connection.hold(held);
        assert_eq!(budget.figures().held, counted, "{held} bytes");
    }
    connection.hold(1 << 20);
    drop(connection);
    assert_eq!(budget.figures(), BudgetFigures { limit: LIMIT, ..BudgetFigures::default() });
    assert!(budget.table().shares.is_empty());
}

#[test]
fn beyond_the_limit_one_connection_has_the_pass_until_its_message_ends() {
    let budget = MessageBudget::new(LIMIT);
    let [mut large, mut small] = Connection::many(&budget);
    large.hold(LIMIT);
    assert!(!large.account.is_bounded(), "one step is left");
    large.hold(LIMIT + FREE);
    assert!(large.account.is_bounded());
    assert!(!large.waits(true) && large.account.has_pass());
    assert!(small.waits(true) && !small.account.has_pass());
    assert_eq!((budget.figures().pauses, small.woken()), (1, 0));
    large.account.return_pass();
    large.settle();
    assert_eq!((small.woken(), small.account.has_pass()), (1, true));
    assert!(large.waits(true));
}

#[test]
fn a_connection_that_ends_gives_back_its_bytes_its_pass_and_its_place() {
    let budget = MessageBudget::new(LIMIT);
    let [mut first, mut second, mut third] = Connection::many(&budget);
    first.hold(LIMIT + FREE);
    assert!(!first.waits(true) && second.waits(true) && third.waits(true));
    second.account.close();
    second.settle();
    first.account.close();
    first.settle();
    assert_eq!((budget.figures().held, budget.pass.load(Relaxed)), (0, 0));
    assert_eq!((second.woken(), third.woken()), (0, 1));
    third.account.close();
    assert!(budget.table().shares.is_empty() && budget.waiting.load(Relaxed) == 0);
}

#[test]
fn those_in_line_are_woken_one_after_another_as_long_as_there_is_room() {
    let budget = MessageBudget::new(LIMIT);
    let [mut large, mut passing] = Connection::many(&budget);
    large.hold(LIMIT + FREE);
    assert!(!passing.waits(true));
    let mut line: [Connection; 3] = Connection::many(&budget);
    assert!(line.iter_mut().all(|connection| connection.waits(true)));
    large.hold(LIMIT);
    assert_eq!(woken(&line), [1, 0, 0]);
    // The first takes what there is, so the second waits on.
    line[0].hold(FREE + STEP);
    line[0].go_on();
    assert_eq!(woken(&line), [1, 0, 0]);
    large.hold(0);
    assert_eq!(woken(&line), [1, 1, 0]);
    // The second does not need what it was woken for.
    line[1].go_on();
    assert_eq!(woken(&line), [1, 1, 1]);
    line[2].go_on();
    assert_eq!(budget.waiting.load(Relaxed), 0);
}

#[test]
fn a_connection_that_finds_nothing_left_keeps_its_place() {
    let budget = MessageBudget::new(LIMIT);
    let [mut large, mut passing, mut first, mut second] = Connection::many(&budget);
    large.hold(LIMIT + FREE);
    assert!(!passing.waits(true) && first.waits(true) && second.waits(true));
    large.hold(LIMIT);
    large.hold(LIMIT + FREE);
    assert!(first.waits(true));
    large.hold(LIMIT);
    assert_eq!((first.woken(), second.woken(), budget.figures().pauses), (2, 0, 2));
}

#[test]
fn who_only_reads_ahead_comes_last_and_never_has_the_pass() {
    let budget = MessageBudget::new(LIMIT);
    let [mut large, mut ahead, mut urgent] = Connection::many(&budget);
    large.hold(LIMIT + FREE);
    assert!(ahead.waits(false) && !ahead.account.has_pass());
    assert!(!large.waits(true) && urgent.waits(true));
    large.hold(0);
    assert_eq!((urgent.woken(), ahead.woken()), (1, 0));
    urgent.go_on();
    assert_eq!(ahead.woken(), 1);
    // A handler that receives now has its connection come first.
    large.hold(LIMIT + FREE);
    assert!(ahead.waits(false) && ahead.waits(true));
    assert_eq!(budget.table().lines.each_ref().map(BTreeMap::len), [1, 0]);
}

#[test]
fn one_that_loses_patience_has_the_largest_closed_and_the_pass_moves_on() {
    let budget = MessageBudget::new(LIMIT);
    let mut connections: [Connection; 3] = Connection::many(&budget);
    for (connection, held) in connections.iter_mut().zip([100 << 10, 150 << 10, 50 << 10]) {
        connection.hold(held + FREE);
    }
    let [slow, largest, patient] = &mut connections;
    assert!(!slow.waits(true) && slow.account.has_pass() && patient.waits(true));
    for _ in 0..3 {
        patient.lose_patience();
        assert_eq!((largest.account.is_condemned(), largest.woken()), (true, 1));
        assert!(!slow.account.is_condemned() && !slow.account.has_pass());
        assert_eq!((budget.figures().closed, patient.woken()), (1, 1), "there is room");
    }
    // What it holds is free already, and counted no more.
    let held = budget.figures().held;
    largest.hold(200 << 10);
    largest.account.close();
    assert_eq!(budget.figures().held, held);
}

#[test]
fn room_that_is_found_in_line_is_taken() {
    let budget = MessageBudget::new(LIMIT);
    let mut connection = Connection::of(&budget);
    connection.hold(2 * FREE);
    assert!(!connection.waits(true) && !connection.account.is_waiting());
    assert_eq!((budget.waiting.load(Relaxed), budget.figures().pauses), (0, 0));
}
