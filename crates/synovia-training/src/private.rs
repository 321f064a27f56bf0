//! Training whose every step says little of any one patient: gradients clipped a patient each, summed, and drowned in Gaussian
//! noise (Abadi et al. 2016, "Deep Learning with Differential Privacy", algorithm 1).
//!
//! What a step is about is a patient, not an example: one who comes up with ten images is protected as well as one with one.
//! What is not protected, because it is released without noise: which patients are in the train split, counts of labels and
//! of modalities, statistics of the features, and all that the validation split decides.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use synovia_cohort::ExampleRow;
use synovia_encoders::NormKind;
use synovia_fusion::{JointModel, JointModelConfig};

use crate::accountant::epsilon;
use crate::batch::{HostBatch, TrainingChanges};
use crate::course::{Course, EpochSums, Moving, Seen, diverged};
use crate::fit::Progress;
use crate::losses::{TaskSums, balanced, forward, relative};
use crate::optimizer::{gradients, norm};
use crate::{Balance, Imbalance, Sampling, TrainingError, TrainingSettings};

/// How private a training is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Privacy {
    /// Standard deviation of the noise on the sum of the patients' gradients, in units of `clip`.
    pub noise: f64,
    /// Norm that each patient's gradient is clipped to.
    pub clip: f64,
    /// Chance with which ε may not hold; below one in the number of patients.
    pub delta: f64,
}

/// What noise and samples are drawn from. Whoever knows it can take the noise off.
#[derive(Clone)]
pub struct NoiseKey([u8; 32]);

impl NoiseKey {
    /// That of a file, which is made, for its owner's eyes alone, where there is none: a training that is gone on with draws
    /// the same noise again, and not a second one of which the mean could be taken.
    ///
    /// # Errors
    /// [`TrainingError::Io`] when it can't be read or made, or is no key.
    pub fn open(path: &Path) -> Result<Self, TrainingError> {
        let io = |source| TrainingError::Io { path: path.to_owned(), source };
        match std::fs::read(path) {
            Ok(bytes) => {
                let wrong = |_| io(std::io::Error::other("not a key of 32 bytes"));
                Ok(Self(bytes.try_into().map_err(wrong)?))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key: [u8; 32] = rand::random();
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent).map_err(io)?;
                }
                let mut options = std::fs::OpenOptions::new();
                options.write(true).create_new(true);
                #[cfg(unix)]
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
                let mut file = options.open(path).map_err(io)?;
                file.write_all(&key).and_then(|()| file.sync_all()).map_err(io)?;
                Ok(Self(key))
            }
            Err(error) => Err(io(error)),
        }
    }

    /// A key that everybody can make again, for tests and for repeatable studies on public data: it protects nothing.
    pub fn public(seed: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        Self(key)
    }

    /// The key for one purpose, such as a training from these weights: the same for the same words. Noise that is drawn twice must be
    /// on the same numbers, or the difference of the two would have none.
    #[must_use]
    pub fn of(&self, purpose: &str) -> Self {
        Self(Sha256::new().chain_update(self.0).chain_update(purpose).finalize().into())
    }

    /// Random numbers of one step.
    fn step(&self, step: u64) -> ChaCha20Rng {
        let mut rng = ChaCha20Rng::from_seed(self.0);
        rng.set_stream(step);
        rng
    }
}

impl Privacy {
    /// ε after `steps` steps, each of a sample of about `batch` of `patients`. Infinite without noise.
    pub fn epsilon(&self, batch: usize, patients: usize, steps: u64) -> f64 {
        epsilon((batch as f64 / patients.max(1) as f64).min(1.0), self.noise, steps, self.delta).unwrap_or(f64::INFINITY)
    }

    /// Whether all settings keep patients apart.
    pub(crate) fn check(&self, settings: &TrainingSettings, model: &JointModelConfig) -> Result<(), TrainingError> {
        let wrong = |what| Err(TrainingError::Privacy(what));
        if !(self.noise.is_finite() && self.noise >= 0.0 && self.clip > 0.0 && self.delta > 0.0 && self.delta < 1.0) {
            return wrong("noise must be 0 or more, clip above 0 and delta between 0 and 1");
        }
        if model.norm == NormKind::Batch {
            return wrong("batch normalisation lets each patient change what becomes of the others; set model.norm = \"group\"");
        }
        if settings.sampling != Sampling::Plain {
            return wrong("balanced sampling shows some patients more often than the noise is made for; set training.sampling = \"plain\"");
        }
        if settings.imbalance == Imbalance::Weights {
            return wrong(
                "a rare patient's gradient is clipped as all others are, whatever it weighs; set training.imbalance = \"logits\"",
            );
        }
        if settings.accumulate > 1 {
            return wrong(
                "a step's gradient is gathered a patient each, however many they are; set training.batch, and leave training.accumulate out",
            );
        }
        if settings.balance != Balance::Fixed {
            return wrong(
                "a balance of tasks looks at labels, losses or gradients before they have noise; set training.balance = \"fixed\"",
            );
        }
        if settings.branches.pairs > 0.0 {
            return wrong("training.branches pairs compares patients with each other; leave it out");
        }
        Ok(())
    }
}

/// A step's sample and noise.
pub(crate) struct Private {
    privacy: Privacy,
    key: NoiseKey,
    /// For each patient the places of the examples.
    patients: Vec<Vec<usize>>,
}

impl Private {
    pub fn new(privacy: Privacy, key: NoiseKey, rows: &[&ExampleRow]) -> Self {
        let mut patients: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (k, row) in rows.iter().enumerate() {
            patients.entry(&row.patient).or_default().push(k);
        }
        Self { privacy, key, patients: patients.into_values().collect() }
    }

    pub fn n_patients(&self) -> usize {
        self.patients.len()
    }
}

/// What a sample gives before it has noise.
#[derive(Default)]
struct Summed {
    gradient: BTreeMap<String, Tensor<1>>,
    /// Means over the patients.
    loss: f64,
    norm: f64,
}

/// Names and sizes of what is trained.
#[derive(Default)]
struct Trained {
    path: Vec<String>,
    sizes: BTreeMap<String, usize>,
}

impl ModuleVisitor for Trained {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.is_require_grad() {
            self.sizes.insert(self.path.join("."), param.val().shape().num_elements());
        }
    }
}

impl Course<'_, '_> {
    /// As [`Course::epoch`]: as many steps as make an epoch by the expected size of a sample.
    pub(crate) fn private_epoch(
        &self,
        private: &Private,
        epoch: usize,
        mut model: JointModel,
        moving: &mut Moving,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<(JointModel, EpochSums), TrainingError> {
        let started = Instant::now();
        let mut trained = Trained::default();
        model.visit(&mut trained);
        trained.sizes.retain(|name, _| !moving.optimizer.is_frozen(name));
        let mut sums = TaskSums::new(self.uninformed.len());
        let (mut n_seen, mut norms, mut rate) = (0usize, 0.0, 0.0);
        for step in 0..self.steps {
            let at = (epoch * self.steps + step) as u64;
            let mut rng = private.key.step(at);
            let share = self.batch as f64 / private.n_patients() as f64;
            let sample: Vec<&Vec<usize>> = private.patients.iter().filter(|_| rng.random::<f64>() < share).collect();
            let Summed { gradient: mut total, loss, norm } =
                self.clipped_sum(&model, &sample, private.privacy.clip, (epoch, step), moving, &mut sums)?;
            norms += norm / self.steps as f64;
            n_seen += sample.iter().map(|patient| patient.len()).sum::<usize>();
            let deviation = private.privacy.noise * private.privacy.clip;
            // All numbers get noise, in the order of their names, whether anybody in the sample trained them or not.
            let noised = trained.sizes.iter().map(|(name, &n)| {
                let noise: Vec<f32> = (0..n).map(|_| (deviation * rng.sample::<f64, _>(StandardNormal)) as f32).collect();
                let noise = Tensor::<1>::from_data(TensorData::new(noise, [n]), &Device::flex());
                let sum = match total.remove(name) {
                    Some(sum) => sum + noise,
                    None => noise,
                };
                (name.clone(), sum.div_scalar(self.batch as f64))
            });
            let noised = noised.collect();
            rate = self.rate(epoch, step);
            (model, _) = moving.optimizer.apply(model, noised, rate);
            moving.state.steps += 1;
            moving.average.add(&model, moving.state.steps);
            let examples_per_s = n_seen as f64 / started.elapsed().as_secs_f64();
            progress(Progress::Step { epoch: epoch + 1, step: step + 1, loss: loss as f32, examples_per_s });
        }
        let examples_per_s = n_seen as f64 / started.elapsed().as_secs_f64();
        // What a sample happened to have is not to be told: these are the numbers of an epoch as it is planned.
        let count = |has: &dyn Fn(&ExampleRow) -> bool| self.rows.iter().filter(|row| has(row)).count() as u64;
        let seen = Seen {
            examples: self.rows.len() as u64,
            images: count(&|row| self.presence.image && row.image_row.is_some()),
            records: count(&|row| self.presence.record && row.record_row.is_some()),
            labels: (0..self.tasks.len()).map(|k| count(&|row| row.labels[k].is_some())).collect(),
        };
        Ok((model, EpochSums { losses: sums.means(), rate, gradient_norm: norms, examples_per_s, seen }))
    }

    /// The sum of the patients' gradients, none of which is longer than `clip`.
    ///
    /// - place: epoch and step
    fn clipped_sum(
        &self,
        model: &JointModel,
        sample: &[&Vec<usize>],
        clip: f64,
        (epoch, step): (usize, usize),
        moving: &mut Moving,
        sums: &mut TaskSums,
    ) -> Result<Summed, TrainingError> {
        let mut summed = Summed::default();
        for patient in sample {
            let (mut gradient, loss) = self.patient_gradient(model, patient, (epoch, step), moving, sums)?;
            // A patient weighs as much as ever in what is learnt, whatever is not.
            gradient.retain(|name, _| !moving.optimizer.is_frozen(name));
            let norm = norm(&gradient);
            if !norm.is_finite() {
                return Err(diverged("the gradient's norm", norm, epoch, step));
            }
            let scale = if norm > clip { clip / norm } else { 1.0 };
            for (name, part) in gradient {
                let part = part.mul_scalar(scale);
                let sum = match summed.gradient.remove(&name) {
                    Some(sum) => sum + part,
                    None => part,
                };
                summed.gradient.insert(name, sum);
            }
            summed.loss += loss / sample.len() as f64;
            summed.norm += norm / sample.len() as f64;
        }
        Ok(summed)
    }

    /// The gradient of one patient's mean loss, and that loss.
    ///
    /// - place: epoch and step
    fn patient_gradient(
        &self,
        model: &JointModel,
        patient: &[usize],
        (epoch, step): (usize, usize),
        moving: &mut Moving,
        sums: &mut TaskSums,
    ) -> Result<(BTreeMap<String, Tensor<1>>, f64), TrainingError> {
        let rows: Vec<&ExampleRow> = patient.iter().map(|&place| self.rows[place]).collect();
        let changes = TrainingChanges {
            augmentation: &self.settings.augmentation,
            modality_dropout: self.settings.modality_dropout,
            seed: self.settings.seed,
            epoch,
            first: patient.first().copied().unwrap_or_default(),
        };
        let batch =
            HostBatch::read(self.reader(), &rows, self.presence, Some(&changes))?.into_tensors(self.tasks, self.endpoints, &self.device);
        let known = batch.known.clone();
        let forwarded = forward(model, batch, self.tasks, self.endpoints, &self.adjustments, &self.device);
        let values: Vec<f32> = forwarded.losses.iter().map(|loss| loss.value.clone().into_scalar::<f32>()).collect();
        let loss = relative(values.iter().map(|&value| f64::from(value)), &self.trained_on);
        if !loss.is_finite() {
            return Err(diverged("the loss", loss, epoch, step));
        }
        let joint =
            balanced(model, &forwarded.losses, &known, &forwarded.shared, &self.trained_on, self.settings.balance, &mut moving.state)
                .ok_or(TrainingError::EmptySplit("train"))?;
        let total = match self.settings.branches.loss(model, &forwarded, &self.trained_on) {
            Some(between) => joint + between,
            None => joint,
        };
        drop(forwarded);
        sums.add(&values, &known);
        Ok((gradients(model, &mut total.backward()), loss))
    }
}

#[cfg(test)]
mod tests {
    use synovia_cohort::{CohortReader, Split, Train};
    use synovia_encoders::FeatureStatistics;
    use synovia_fusion::{RecordTower, apply_state};

    use super::*;
    use crate::checkpoint::CheckpointProgress;
    use crate::tests::{N_FACTS, alone, facts, model, settings};
    use crate::{
        Augmentation, Average, Branches, Checkpoint, Part, Presence, Weights, fit_statistics, initial_weights, label_counts, predict,
        train_part, uninformed_losses,
    };

    fn private_model() -> JointModelConfig {
        let record = Some(RecordTower::Table { n_features: N_FACTS, width: 32, dropout: 0.0 });
        JointModelConfig { record, dropout: 0.0, norm: NormKind::Group, ..model(false, true) }
    }

    fn private_settings(epochs: usize, batch: usize, privacy: Option<Privacy>) -> TrainingSettings {
        let plain = settings(epochs, Sampling::Plain);
        TrainingSettings { batch, privacy, ema: 0.0, modality_dropout: 0.0, weight_decay: 0.0, augmentation: Augmentation::NONE, ..plain }
    }

    fn trained(reader: &CohortReader, settings: &TrainingSettings, key: u64) -> Result<(Weights, Option<f64>), TrainingError> {
        let (model, train) = (private_model(), reader.view::<Train>());
        let statistics = fit_statistics(&train).unwrap();
        let start = Checkpoint { model: initial_weights(&model, &statistics, 5)?, ..Checkpoint::default() };
        let uninformed = uninformed_losses(&reader.manifest().tasks, &label_counts(&model, &train));
        let (key, epochs) = (NoiseKey::public(key), 0..settings.epochs);
        let part = Part { model: &model, settings, uninformed: &uninformed, epochs, proximal: 0.0, shift: None, noise: Some(&key) };
        let trained = train_part(&part, start, &train, &mut |_| ())?;
        Ok((trained.checkpoint.model, trained.epsilon))
    }

    fn farthest(a: &Weights, b: &Weights) -> f32 {
        let each = a.iter().flat_map(|(name, tensor)| tensor.values.iter().zip(&b[name].values));
        each.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn without_noise_and_clipping_it_is_plain_training() {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let reader = facts(&dir.path().join("cohort"), 60);
        let open = Privacy { noise: 0.0, clip: 1e9, delta: 1e-5 };
        // One step of all patients, whose gradients one by one make the gradient of all at once.
        let (one_by_one, epsilon) = trained(&reader, &private_settings(1, 1000, Some(open)), 1).unwrap();
        let (at_once, none) = trained(&reader, &private_settings(1, 1000, None), 1).unwrap();
        let far = farthest(&one_by_one, &at_once);
        assert!(far < 2e-4, "{far}, at a learning rate of 0.005");
        assert_eq!((epsilon, none), (Some(f64::INFINITY), None));
        let clipped = Privacy { clip: 1e-3, ..open };
        assert!(farthest(&trained(&reader, &private_settings(1, 1000, Some(clipped)), 1).unwrap().0, &at_once) > 10.0 * far);
    }

    #[test]
    fn no_patient_moves_a_sum_by_more_than_the_clip() {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let reader = facts(&dir.path().join("cohort"), 40);
        let (model, train) = (private_model(), reader.view::<Train>());
        let privacy = Privacy { noise: 1.0, clip: 0.3, delta: 1e-5 };
        let settings = private_settings(1, 8, Some(privacy));
        let key = NoiseKey::public(1);
        let course = Course::new(&model, &settings, vec![1.0], &train, Some(&key)).unwrap();
        let statistics = FeatureStatistics::identity(N_FACTS);
        let start = initial_weights(&model, &statistics, 5).unwrap();
        let network = apply_state(model.init(None, &course.device).unwrap(), &start).unwrap();
        let mut moving = Moving { optimizer: course.optimizer(), average: Average::new(0.0), state: CheckpointProgress::default() };
        let patients: Vec<Vec<usize>> = (0..12).map(|k| vec![k]).collect();
        let mut sum = |patients: &[&Vec<usize>], clip| {
            let mut sums = TaskSums::new(1);
            course.clipped_sum(&network, patients, clip, (0, 0), &mut moving, &mut sums).unwrap()
        };
        let all: Vec<&Vec<usize>> = patients.iter().collect();
        let whole = sum(&all, privacy.clip);
        assert!(whole.norm > privacy.clip, "{}: nothing was clipped", whole.norm);
        for without in 0..all.len() {
            let others: Vec<&Vec<usize>> = all.iter().enumerate().filter(|(k, _)| *k != without).map(|(_, patient)| *patient).collect();
            let less = sum(&others, privacy.clip).gradient;
            let moved = whole.gradient.iter().map(|(name, a)| (name.clone(), a.clone() - less[name].clone())).collect();
            assert!(norm(&moved) <= privacy.clip * (1.0 + 1e-4), "{}", norm(&moved));
        }
        // A patient with two examples counts as one.
        let both = vec![0, 1];
        assert!(norm(&sum(&[&both], privacy.clip).gradient) <= privacy.clip * (1.0 + 1e-4));
    }

    #[test]
    fn a_key_gives_the_same_noise_again_and_another_another() {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let reader = facts(&dir.path().join("cohort"), 60);
        let settings = private_settings(2, 10, Some(Privacy { noise: 1.0, clip: 1.0, delta: 1e-5 }));
        let (first, epsilon) = trained(&reader, &settings, 1).unwrap();
        assert_eq!(first, trained(&reader, &settings, 1).unwrap().0);
        assert_ne!(first, trained(&reader, &settings, 2).unwrap().0);
        let n = reader.rows().iter().filter(|row| row.split == Split::Train).count();
        let steps = 2 * ((n + 5) / 10) as u64;
        assert_eq!(epsilon, crate::accountant::epsilon(10.0 / n as f64, 1.0, steps, 1e-5));
        let key = NoiseKey::public(1);
        assert!(key.of("a").0 == key.of("a").0 && key.of("a").0 != key.of("b").0 && key.of("a").0 != NoiseKey::public(2).of("a").0);
        let path = dir.path().join("keys/noise.key");
        let (made, again) = (NoiseKey::open(&path).unwrap(), NoiseKey::open(&path).unwrap());
        assert_eq!(made.0, again.0);
        assert_ne!(made.0, NoiseKey::open(&dir.path().join("other")).unwrap().0);
        std::fs::write(&path, "short").unwrap();
        assert!(NoiseKey::open(&path).is_err());
    }

    #[test]
    fn what_would_not_be_private_is_refused() {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let reader = facts(&dir.path().join("cohort"), 40);
        let private = private_settings(1, 8, Some(Privacy { noise: 1.0, clip: 1.0, delta: 1e-5 }));
        let check = |settings: TrainingSettings, expected: &str| {
            let error = trained(&reader, &settings, 1).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(TrainingSettings { sampling: Sampling::Balanced, ..private.clone() }, "set training.sampling = \"plain\"");
        for balance in [Balance::PcGrad, Balance::Labels] {
            check(TrainingSettings { balance, ..private.clone() }, "set training.balance = \"fixed\"");
        }
        check(TrainingSettings { imbalance: Imbalance::Weights, ..private.clone() }, "set training.imbalance = \"logits\"");
        check(TrainingSettings { accumulate: 2, ..private.clone() }, "leave training.accumulate out");
        check(TrainingSettings { branches: Branches { pairs: 0.1, ..Branches::default() }, ..private.clone() }, "compares patients");
        check(TrainingSettings { privacy: Some(Privacy { noise: 1.0, clip: 0.0, delta: 1e-5 }), ..private.clone() }, "clip above 0");
        let batch_norm = JointModelConfig { norm: NormKind::Batch, ..private_model() };
        let error = Privacy { noise: 1.0, clip: 1.0, delta: 1e-5 }.check(&private, &batch_norm).unwrap_err().to_string();
        assert!(error.contains("set model.norm = \"group\""), "{error}");
    }

    /// AUROC of the attack by the loss: how often the truth of one of the train split is more probable than of one of the test split.
    fn attack(reader: &CohortReader, weights: &Weights) -> f64 {
        let rows: Vec<&ExampleRow> = reader.rows().iter().collect();
        let predicted = predict(&private_model(), weights, reader, &rows, Presence { image: false, record: true }).unwrap();
        let of_truth = |split| -> Vec<f32> {
            let of_split = predicted.iter().filter(|p| rows[p.row].split == split);
            of_split.map(|p| if rows[p.row].labels[0] == Some(1.0) { p.logits[0][0] } else { -p.logits[0][0] }).collect()
        };
        let (members, others) = (of_truth(Split::Train), of_truth(Split::Test));
        let above: f64 = members.iter().flat_map(|a| others.iter().map(move |b| f64::from(u8::from(a > b)))).sum();
        above / (members.len() * others.len()) as f64
    }

    #[test]
    fn who_was_trained_on_cannot_be_told_at_epsilon_3() {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        // Labels that have nothing to do with the facts: all that can be learnt is who is who.
        let reader = facts(&dir.path().join("cohort"), 1000);
        let (learnt_by_heart, _) = trained(&reader, &private_settings(40, 50, None), 1).unwrap();
        let open = attack(&reader, &learnt_by_heart);
        assert!(open >= 0.6, "{open} without privacy");
        let (private, epsilon) =
            trained(&reader, &private_settings(10, 50, Some(Privacy { noise: 2.0, clip: 1.0, delta: 1e-5 })), 1).unwrap();
        let (private, epsilon) = (attack(&reader, &private), epsilon.unwrap());
        assert!(epsilon > 2.0 && epsilon <= 3.0, "ε = {epsilon}");
        assert!(private <= 0.55, "{private} at ε = {epsilon}, {open} without privacy");
    }
}
