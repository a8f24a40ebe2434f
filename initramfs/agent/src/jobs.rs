//! Jobs: work that takes longer than an answer. One at a time, in a thread of its own; a connection that is lost and
//! comes back finds it where it is.
//!
//! ```text
//!  Begin(new) ──▶ running ──▶ ended ──Noted──▶ remembered (the last ones, so that none runs twice)
//!  Begin(same) ──▶ nothing: Progress or Ended is said again
//!  Begin(other) while one runs ──▶ refused
//! ```
//! A job that does not move says for how long, and what its threads wait for: a disk that answers no more holds the thread
//! that asked it inside the kernel, where nothing can end it.

use std::collections::{HashSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use nix::sys::eventfd::{EfdFlags, EventFd};
use rackbar_install::{Control, Progress};
use rackbar_messages::{FromAgent, JobFailure, JobId, JobReport, Work};

use crate::report::say;
use crate::still::Still;

/// Ended jobs that are remembered. Their number is small and their reports are a few KiB.
const REMEMBERED: usize = 64;

/// What came of a job.
type Outcome = Result<JobReport, JobFailure>;

/// Who does the work.
type Perform = dyn Fn(&Work, &Control) -> Outcome + Send + Sync;

/// The job that runs.
struct Running {
    job: JobId,
    control: Arc<Control>,
    still: Still,
}

/// A job that ended.
struct Ended {
    job: JobId,
    outcome: Outcome,
    noted: bool,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    ended: VecDeque<Ended>,
}

struct Shared {
    state: Mutex<State>,
    bell: Option<EventFd>,
    perform: Box<Perform>,
}

/// The jobs of this boot. Clones are the same jobs.
#[derive(Clone)]
pub struct Jobs(Arc<Shared>);

impl Jobs {
    /// Jobs that `perform` carries out.
    pub fn new(perform: impl Fn(&Work, &Control) -> Outcome + Send + Sync + 'static) -> Self {
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        Self(Arc::new(Shared {
            state: Mutex::default(),
            bell: bell.ok(),
            perform: Box::new(perform),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a job, unless it runs or has run already.
    ///
    /// # Errors
    /// In words, when another one runs or no thread can be made.
    pub fn begin(&self, job: JobId, work: Work) -> Result<(), String> {
        let mut state = self.state();
        if state.ended.iter().any(|ended| ended.job == job) {
            return Ok(());
        }
        match &state.running {
            Some(running) if running.job == job => return Ok(()),
            Some(running) => {
                let doing = running.control.progress().doing;
                return Err(format!("another job runs on this machine: {doing}"));
            }
            None => {}
        }
        let control = Arc::new(Control::default());
        control.begin(name(&work), 0);
        let (jobs, worker) = (self.clone(), Arc::clone(&control));
        let run = move || {
            say!("job begins: {}", name(&work));
            let outcome = (jobs.0.perform)(&work, &worker);
            match &outcome {
                Ok(_) => say!("job done: {}", name(&work)),
                Err(failure) => say!("job failed: {}: {}", name(&work), failure.reason),
            }
            jobs.end(job, outcome);
        };
        let thread = thread::Builder::new().name("job".to_owned()).spawn(run);
        thread.map_err(|error| format!("no thread for the job: {error}"))?;
        let still = Still::default();
        state.running = Some(Running { job, control, still });
        Ok(())
    }

    fn end(&self, job: JobId, outcome: Outcome) {
        let mut state = self.state();
        state.running = None;
        if state.ended.len() >= REMEMBERED {
            // One that the appliance has not noted yet is kept as long as there is another.
            let oldest = state.ended.iter().position(|ended| ended.noted).unwrap_or(0);
            state.ended.remove(oldest);
        }
        state.ended.push_back(Ended {
            job,
            outcome,
            noted: false,
        });
        if let Some(bell) = &self.0.bell {
            let _ = bell.write(1);
        }
    }

    /// True while a job runs, or the appliance has not noted the end of one: somebody waits for this machine.
    pub fn busy(&self) -> bool {
        let state = self.state();
        state.running.is_some() || state.ended.iter().any(|ended| !ended.noted)
    }

    /// Gives a job up.
    ///
    /// # Errors
    /// In words, when it is not known. One that has ended is no error.
    pub fn give_up(&self, job: JobId) -> Result<(), String> {
        let state = self.state();
        match &state.running {
            Some(running) if running.job == job => {
                running.control.give_up();
                Ok(())
            }
            _ if state.ended.iter().any(|ended| ended.job == job) => Ok(()),
            _ => Err("this agent does not know that job".to_owned()),
        }
    }

    /// The appliance wrote the end of a job down. True when the machine shall now jump into the kernel that the job
    /// loaded: the answer is out, and nothing can be said afterwards.
    pub fn noted(&self, job: JobId) -> bool {
        let mut state = self.state();
        let ended = state.ended.iter_mut().find(|ended| ended.job == job && !ended.noted);
        ended.is_some_and(|ended| {
            ended.noted = true;
            ended.outcome == Ok(JobReport::Jumping)
        })
    }

    /// The ends that were not noted and are not in `said`.
    pub(crate) fn unsaid(&self, said: &HashSet<JobId>) -> Vec<FromAgent> {
        let state = self.state();
        let unsaid = |ended: &&Ended| !ended.noted && !said.contains(&ended.job);
        let message = |ended: &Ended| FromAgent::Ended {
            job: ended.job,
            result: ended.outcome.clone(),
        };
        state.ended.iter().filter(unsaid).map(message).collect()
    }

    /// Makes the end of a job new again: the appliance asked for it once more.
    pub(crate) fn say_again(&self, job: JobId) {
        let mut state = self.state();
        for ended in state.ended.iter_mut().filter(|ended| ended.job == job) {
            // A jump that was noted is under way.
            ended.noted = ended.noted && ended.outcome == Ok(JobReport::Jumping);
        }
    }

    /// How far the running job is, and when it has not moved for long, why.
    pub(crate) fn progress(&self) -> Option<(JobId, Progress)> {
        let mut state = self.state();
        let running = state.running.as_mut()?;
        let mut progress = running.control.progress();
        if let Some(words) = running.still.look(&progress, Instant::now()) {
            progress.doing = format!("{}: {words}", progress.doing);
        }
        Some((running.job, progress))
    }

    /// True while a job runs.
    pub(crate) fn is_busy(&self) -> bool {
        self.state().running.is_some()
    }

    /// Readable when a job has ended; [`hear`](Self::hear) silences it.
    pub(crate) fn news(&self) -> Option<BorrowedFd<'_>> {
        self.0.bell.as_ref().map(AsFd::as_fd)
    }

    /// Silences the bell.
    pub(crate) fn hear(&self) {
        if let Some(bell) = &self.0.bell {
            let _ = bell.read();
        }
    }
}

/// What a job does, for the log and the first progress.
fn name(work: &Work) -> String {
    match work {
        Work::Erase { disks, method } => format!("emptying {} disks ({})", disks.len(), method.name()),
        Work::Write { image, .. } => format!("writing {}", image.name),
        Work::Setup { setup, .. } => format!("setting up {}", setup.hostname),
        Work::Adjust { setup, .. } => format!("changing what {} was given", setup.hostname),
        Work::BootOrder { .. } => "setting the firmware's boot order".to_owned(),
        Work::Kexec { .. } => "loading the installed kernel".to_owned(),
        Work::BurnIn(_) => "exercising the hardware".to_owned(),
        Work::Layout => "looking at the disks".to_owned(),
        Work::BmcSetup(_) => "setting the BMC up".to_owned(),
        Work::Condition => "looking how the machine is".to_owned(),
        Work::Rescue { .. } => "running a rescue step in the system on the disk".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    const A: JobId = JobId([1; 16]);
    const B: JobId = JobId([2; 16]);

    /// Jobs whose work waits for a word or for being given up, and counts how often it was begun.
    fn jobs() -> (Jobs, std::sync::mpsc::Sender<()>, Receiver<()>) {
        let (go, wait) = channel::<()>();
        let (begun, count) = channel::<()>();
        let wait = Mutex::new(wait);
        let jobs = Jobs::new(move |_, control| {
            begun.send(()).unwrap();
            loop {
                control.check()?;
                if wait.lock().unwrap().recv_timeout(Duration::from_millis(5)).is_ok() {
                    return Ok(JobReport::Layout(Vec::new()));
                }
            }
        });
        (jobs, go, count)
    }

    fn wait_for_end(jobs: &Jobs) -> Vec<FromAgent> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let ended = jobs.unsaid(&HashSet::new());
            if !ended.is_empty() {
                return ended;
            }
            assert!(Instant::now() < deadline, "the job did not end");
            thread::yield_now();
        }
    }

    #[test]
    fn a_job_runs_once_however_often_it_is_asked_for() {
        let (jobs, go, count) = jobs();
        jobs.begin(A, Work::Layout).unwrap();
        jobs.begin(A, Work::Layout).unwrap();
        let refused = jobs.begin(B, Work::Layout).unwrap_err();
        assert!(refused.contains("looking at the disks"), "{refused}");
        assert_eq!(jobs.progress().unwrap().0, A);
        go.send(()).unwrap();
        let ended = wait_for_end(&jobs);
        assert!(matches!(ended.as_slice(), [FromAgent::Ended { job: A, result: Ok(_) }]));
        jobs.begin(A, Work::Layout).unwrap();
        assert!(!jobs.noted(A));
        assert!(
            jobs.unsaid(&HashSet::new()).is_empty(),
            "what was noted is not said again"
        );
        jobs.begin(A, Work::Layout).unwrap();
        jobs.say_again(A);
        assert_eq!(jobs.unsaid(&HashSet::new()).len(), 1, "unless it is asked for");
        assert_eq!(count.try_iter().count(), 1);
    }

    #[test]
    fn a_job_that_is_given_up_ends_with_words_and_makes_room() {
        let (jobs, go, _count) = jobs();
        assert!(jobs.give_up(A).is_err());
        jobs.begin(A, Work::Layout).unwrap();
        jobs.give_up(A).unwrap();
        let ended = wait_for_end(&jobs);
        let [
            FromAgent::Ended {
                result: Err(failure), ..
            },
        ] = ended.as_slice()
        else {
            panic!("{ended:?}")
        };
        assert!(failure.reason.contains("given up") && failure.again);
        jobs.noted(A);
        jobs.begin(B, Work::Layout).unwrap();
        go.send(()).unwrap();
        assert!(matches!(
            wait_for_end(&jobs).as_slice(),
            [FromAgent::Ended { job: B, .. }]
        ));
    }

    #[test]
    fn a_jump_follows_the_note_and_only_the_first_one() {
        let jobs = Jobs::new(|_, _| Ok(JobReport::Jumping));
        jobs.begin(A, Work::Layout).unwrap();
        wait_for_end(&jobs);
        assert!(jobs.noted(A));
        jobs.say_again(A);
        assert!(!jobs.noted(A));
    }
}
