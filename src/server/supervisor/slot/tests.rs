use super::*;
use crate::cgroup::Cgroup;
use crate::formats::{Assignments, LoadStatus};

fn memory() -> (tempfile::TempDir, Memory) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("memory.max"), (512u64 << 20).to_string()).unwrap();
    std::fs::write(folder.path().join("memory.stat"), "anon 16777216\n").unwrap();
    let memory = Memory::new(Cgroup::at(folder.path()), true);
    (folder, memory)
}

fn slot() -> Slot {
    let assignments: Assignments = serde_json::from_str(
        r#"{"formatVersion":1,"assignments":[{"deployment":"m","revision":"m-r1","modelVersion":"1","port":8080,
            "source":{"uri":"s3://m","immutable":true,"files":[]}}]}"#,
    )
    .unwrap();
    let mut slot = Slot::new(assignments.assignments[0].clone(), false);
    let fetched: LoadStatus = serde_json::from_str(
        r#"{"formatVersion":1,"phase":"Fetched","modelFile":"model.onnx","bytes":1000}"#,
    )
    .unwrap();
    slot.fetched(Some(fetched));
    slot
}

/// A process id that no process has: signals to it go nowhere.
fn nobody() -> Pid {
    Pid::from_raw(i32::MAX).unwrap()
}

fn report(phase: RevisionPhase) -> News {
    News::Report(Report::new(phase))
}

#[test]
fn a_worker_that_dies_is_tried_again_after_1_2_4_up_to_30_seconds() {
    let (_folder, memory) = memory();
    let mut slot = slot();
    let mut now = Instant::now();
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        assert!(slot.wants_start(now).is_some());
        slot.started(Ok(nobody()), now, None);
        slot.exited(Exit::Signal(11), now, &memory);
        assert!(slot.pid().is_some(), "its last words may still be on the way");
        slot.told(News::Closed, now, &memory);
        assert_eq!(slot.pid(), None);
        assert!(slot.wants_start(now + Duration::from_secs(seconds) - Duration::from_millis(1)).is_none());
        now += Duration::from_secs(seconds);
    }
    slot.started(Ok(nobody()), now, None);
    slot.told(report(RevisionPhase::Proven), now, &memory);
    now += PROVEN_FOR;
    slot.told(News::Closed, now, &memory);
    slot.exited(Exit::Code(1), now, &memory);
    assert!(slot.wants_start(now + FIRST_BACKOFF).is_some(), "having served, it starts from one second");
}

#[test]
fn last_words_count_more_than_the_exit() {
    let (_folder, memory) = memory();
    let mut slot = slot();
    let now = Instant::now();
    slot.started(Ok(nobody()), now, memory.cap(false));
    let mut failed = Report::new(RevisionPhase::Failed);
    failed.reason = Some("OutOfMemory".into());
    failed.message = Some("std::bad_alloc".into());
    slot.exited(Exit::Code(3), now, &memory);
    slot.told(News::Report(failed), now, &memory);
    slot.told(News::Closed, now, &memory);
    let state = slot.state(false);
    assert_eq!((state.phase, state.reason.as_deref()), (RevisionPhase::Failed, Some("OutOfMemory")));
    assert_eq!(
        state.message.as_deref(),
        Some(
            "std::bad_alloc; the container's memory limit is 512 MiB, of which 472 MiB were left for this model: raise \
             resources.limits.memory"
        )
    );
    slot.started(Ok(nobody()), now, None);
    let state = slot.state(false);
    assert_eq!(
        (state.phase, state.reason.as_deref()),
        (RevisionPhase::Loading, Some("OutOfMemory")),
        "no flapping"
    );
    slot.told(report(RevisionPhase::Proven), now, &memory);
    assert_eq!(slot.state(false).reason, None);
}

#[test]
fn an_exit_without_words_is_explained() {
    let explain = |exit, proven, near| explain_exit(exit, proven, near, "raise it");
    for (exit, proven, near, reason, message) in [
        (
            Exit::Signal(9),
            false,
            false,
            Reason::OutOfMemory,
            "the worker was killed while loading the model, most likely by the kernel for want of memory; raise it",
        ),
        (
            Exit::Signal(9),
            true,
            false,
            Reason::OutOfMemory,
            "the worker was killed while serving, most likely by the kernel for want of memory; raise it",
        ),
        (
            Exit::Signal(11),
            false,
            false,
            Reason::ModelInvalid,
            "ONNX Runtime crashed on this model: signal 11",
        ),
        (
            Exit::Signal(6),
            false,
            true,
            Reason::OutOfMemory,
            "ONNX Runtime ended for want of memory while loading the model (signal 6); raise it",
        ),
        (Exit::Signal(11), true, true, Reason::CrashLooping, "ONNX Runtime crashed while serving: signal 11"),
        (
            Exit::Code(101),
            false,
            false,
            Reason::CrashLooping,
            "the worker ended with code 101 while loading the model",
        ),
    ] {
        assert_eq!(explain(exit, proven, near), (reason, message.to_string()));
    }
}

#[test]
fn a_worker_that_never_gets_ready_is_replaced() {
    let (_folder, memory) = memory();
    let mut slot = slot();
    let start = Instant::now();
    slot.started(Ok(nobody()), start, None);
    let late = start + Duration::from_secs(901);
    slot.watch(late, Duration::from_secs(900), Duration::from_secs(20));
    slot.told(News::Closed, late, &memory);
    slot.exited(Exit::Signal(9), late, &memory);
    let state = slot.state(false);
    assert_eq!(state.reason.as_deref(), Some("CrashLooping"));
    assert_eq!(state.message.as_deref(), Some("not ready within 900 s (runtime.startupTimeoutSeconds)"));
}

#[test]
fn a_worker_that_is_proven_as_it_is_killed_has_failed() {
    let (_folder, memory) = memory();
    let mut slot = slot();
    let start = Instant::now();
    slot.started(Ok(nobody()), start, None);
    let late = start + Duration::from_secs(901);
    slot.watch(late, Duration::from_secs(900), Duration::from_secs(20));
    slot.told(report(RevisionPhase::Proven), late, &memory);
    assert!(!slot.is_proven());
    slot.told(News::Closed, late, &memory);
    slot.exited(Exit::Signal(9), late, &memory);
    let message = slot.state(false).message;
    assert_eq!(message.as_deref(), Some("not ready within 900 s (runtime.startupTimeoutSeconds)"));
    assert!(slot.wants_start(late).is_none(), "it is tried again later");
}

#[test]
fn a_worker_that_gives_no_sign_of_life_is_killed_and_says_so() {
    let (_folder, memory) = memory();
    let mut slot = slot();
    let mut now = Instant::now();
    let (startup, hang) = (Duration::from_secs(900), Duration::from_secs(20));
    slot.started(Ok(nobody()), now, None);
    slot.told(report(RevisionPhase::Proven), now, &memory);
    let is_killed = |slot: &Slot| slot.worker.as_ref().is_some_and(|w| w.killed);
    for second in 0..60 {
        now += Duration::from_secs(1);
        if second % 19 == 0 {
            slot.told(News::Alive, now, &memory);
        }
        slot.watch(now, startup, hang);
        assert!(!is_killed(&slot), "after {second} s");
    }
    // The pod was frozen: the supervisor heard nothing, because it slept as well.
    slot.told(News::Alive, now, &memory);
    now += Duration::from_secs(3600);
    slot.watch(now, startup, hang);
    assert!(!is_killed(&slot));
    for _ in 0..20 {
        now += Duration::from_secs(1);
        slot.watch(now, startup, hang);
    }
    assert!(is_killed(&slot));
    slot.told(News::Closed, now, &memory);
    slot.exited(Exit::Signal(9), now, &memory);
    let state = slot.state(false);
    assert_eq!((state.phase, state.reason.as_deref()), (RevisionPhase::Failed, Some("CrashLooping")));
    let said = "the worker gave no sign of life for 20 s while serving, and was replaced";
    assert_eq!(state.message.as_deref(), Some(said));
}

#[test]
fn a_worker_beside_another_leaves_it_a_quarter_of_what_is_in_use() {
    let (_folder, memory) = memory();
    assert_eq!((memory.cap(false), memory.cap(true)), (Some(472 << 20), Some(468 << 20)));
}

#[test]
fn a_worker_whose_place_another_takes_ends_and_comes_back_without_its_past() {
    let (_folder, memory) = memory();
    let (mut slot, now) = (slot(), Instant::now());
    slot.started(Ok(nobody()), now, None);
    slot.exited(Exit::Signal(11), now, &memory);
    slot.told(News::Closed, now, &memory);
    assert!(slot.wants_start(now).is_none(), "it failed, and is tried again later");
    slot.fetch_only(true);
    let state = slot.state(false);
    assert_eq!((state.phase, state.reason), (RevisionPhase::Fetched, None));
    slot.fetch_only(false);
    assert!(slot.wants_start(now).is_some());

    slot.started(Ok(nobody()), now, None);
    slot.told(report(RevisionPhase::Proven), now, &memory);
    slot.fetch_only(true);
    slot.stop(now, now + Duration::from_secs(20));
    assert!(!slot.is_proven() && slot.is_leaving());
    slot.fetch_only(false);
    assert!(slot.is_leaving() && slot.wants_start(now).is_none(), "its former worker has not ended");
    slot.told(News::Closed, now, &memory);
    slot.exited(Exit::Code(0), now, &memory);
    assert!(slot.wants_start(now).is_some());
}

#[test]
fn a_worker_that_loads_makes_way_once_for_one_that_served() {
    let (_folder, memory) = memory();
    let (mut stable, mut candidate, now) = (slot(), slot(), Instant::now());
    stable.started(Ok(nobody()), now, None);
    stable.told(report(RevisionPhase::Proven), now, &memory);
    stable.give_way(now);
    assert!(stable.is_proven(), "it serves");
    stable.exited(Exit::Signal(9), now, &memory);
    stable.told(News::Closed, now, &memory);
    assert!(!stable.returns(now) && stable.returns(now + FIRST_BACKOFF));

    candidate.started(Ok(nobody()), now, None);
    candidate.give_way(now);
    assert!(candidate.is_leaving());
    candidate.told(report(RevisionPhase::Proven), now, &memory);
    assert!(!candidate.is_proven(), "it is dead");
    candidate.exited(Exit::Signal(9), now, &memory);
    candidate.told(News::Closed, now, &memory);
    assert_eq!(candidate.state(false).reason, None);
    assert!(candidate.wants_start(now).is_some() && !candidate.returns(now));
    candidate.started(Ok(nobody()), now, None);
    candidate.give_way(now);
    assert!(!candidate.is_leaving());
}
