//! A loaded model, and the thread that runs it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use synovia_onnx::{Session, TensorInfo};
use synovia_prediction::Exported;
use tokio::sync::oneshot;

use crate::batch::{Fitting, Output};
use crate::error::Refusal;
use crate::load::outputs_of;
use crate::queue::{Arriving, Job, Queue};
use crate::statistics::{Run, Statistics};

/// A version of a model, ready to answer. When the last request that knows it is done, its thread ends.
pub(crate) struct Model {
    pub name: String,
    pub version: u64,
    /// SHA-256 of the file.
    pub sha256: String,
    pub inputs: Vec<TensorInfo>,
    pub outputs: Vec<TensorInfo>,
    /// What it says of itself, where it is one of ours.
    pub exported: Option<Exported>,
    pub is_batchable: bool,
    pub max_batch: usize,
    pub queue: Arc<Queue>,
    pub statistics: Arc<Statistics>,
}

impl Drop for Model {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Model {
    /// The outputs, in the model's order.
    ///
    /// - arriving: that of the request; it has arrived when it has its place
    pub(crate) async fn infer(&self, inputs: Fitting, deadline: Instant, arriving: Option<Arriving<'_>>) -> Result<Vec<Output>, Refusal> {
        let (reply, answer) = oneshot::channel();
        let queued = Instant::now();
        let place = self.queue.push(Job { inputs, deadline, queued, reply });
        drop(arriving);
        let outcome = match place {
            Ok(()) => match tokio::time::timeout_at(deadline.into(), answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(Refusal::Unavailable("the model does not run any more; load it again".to_owned())),
                Err(_) => Err(Refusal::Late),
            },
            Err(refusal) => Err(refusal),
        };
        self.statistics.request(outcome.is_ok(), queued.elapsed());
        outcome
    }
}

/// The thread of a model.
pub(crate) struct Worker {
    pub queue: Arc<Queue>,
    pub session: Session,
    pub names: Vec<String>,
    pub is_batchable: bool,
    pub max_batch: usize,
    pub wait: Duration,
    pub statistics: Arc<Statistics>,
}

/// However the thread ends, nobody waits for it afterwards.
struct Ending(Arc<Queue>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Worker {
    /// Answers until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        let _ending = Ending(Arc::clone(&self.queue));
        while let Some(jobs) = self.queue.next(self.max_batch, self.wait) {
            jobs.iter().for_each(|job| self.statistics.left_queue(job.queued.elapsed()));
            match self.batch(&jobs) {
                Ok(outputs) => {
                    for (job, outputs) in jobs.into_iter().zip(outputs) {
                        // Who has gone needs no answer.
                        let _ = job.reply.send(Ok(outputs));
                    }
                }
                // One input may be what the model fails on; the others are not to suffer for it.
                Err(_) if jobs.len() > 1 => {
                    for job in jobs {
                        let answer = self.batch(std::slice::from_ref(&job)).map(|mut outputs| outputs.swap_remove(0));
                        let _ = job.reply.send(answer);
                    }
                }
                Err(refusal) => {
                    for job in jobs {
                        let _ = job.reply.send(Err(refusal.clone()));
                    }
                }
            }
        }
    }

    /// The outputs of each request. More rows than a batch has are run one batch after another.
    fn batch(&mut self, jobs: &[Job]) -> Result<Vec<Vec<Output>>, Refusal> {
        let Some(first) = jobs.first() else { return Ok(Vec::new()) };
        let started = Instant::now();
        let rows: usize = jobs.iter().map(|job| job.inputs.rows).sum();
        let n_inputs = self.names.len();
        // Sizes of an example; of a model that takes no batches, all of them.
        let n_leading = usize::from(self.is_batchable);
        let tails: Vec<&[usize]> = first.inputs.shapes.iter().map(|shape| &shape[n_leading..]).collect();
        let lens: Vec<usize> = tails.iter().map(|tail| tail.iter().product()).collect();
        let mut values: Vec<Vec<f32>> = vec![Vec::new(); n_inputs];
        for (k, values) in values.iter_mut().enumerate() {
            values.reserve_exact(rows * lens[k]);
            jobs.iter().for_each(|job| job.inputs.values[k].append_to(values));
        }
        let mut run = Run { requests: jobs.len() as u64, input: started.elapsed(), ..Run::default() };
        let mut whole: Vec<Output> = Vec::new();
        let step = if self.is_batchable { self.max_batch.max(1) } else { rows };
        for start in (0..rows).step_by(step) {
            let n = step.min(rows - start);
            let shapes: Vec<Vec<usize>> = tails.iter().map(|tail| [&[n][..n_leading], tail].concat()).collect();
            let views: Vec<_> = (0..n_inputs)
                .map(|k| (self.names[k].as_str(), shapes[k].as_slice(), &values[k][start * lens[k]..(start + n) * lens[k]]))
                .collect();
            let began = Instant::now();
            let outputs = outputs_of(self.session.run(&views).map_err(|_| Refusal::Failed)?);
            run.infer = began.elapsed();
            if self.is_batchable && outputs.iter().any(|output| output.shape.first() != Some(&n)) {
                return Err(Refusal::Failed);
            }
            run.rows = n;
            if whole.is_empty() {
                whole = outputs;
            } else {
                for (to, output) in whole.iter_mut().zip(outputs) {
                    to.shape[0] += n;
                    to.values.extend(output.values);
                }
            }
            if start + n < rows {
                self.statistics.run(&Run { requests: 0, ..run });
            }
        }
        let began = Instant::now();
        let answers = if jobs.len() == 1 { vec![whole] } else { split(&whole, jobs, rows) };
        run.output = began.elapsed();
        self.statistics.run(&run);
        Ok(answers)
    }
}

/// Each request's rows.
fn split(whole: &[Output], jobs: &[Job], rows: usize) -> Vec<Vec<Output>> {
    let mut start = 0;
    let mut of_job = |n: usize| {
        let range = start..start + n;
        start += n;
        let part = |output: &Output| {
            let row = output.values.len() / rows;
            let mut shape = output.shape.clone();
            shape[0] = n;
            Output { shape, values: output.values[range.start * row..range.end * row].to_vec() }
        };
        whole.iter().map(part).collect()
    };
    jobs.iter().map(|job| of_job(job.inputs.rows)).collect()
}
