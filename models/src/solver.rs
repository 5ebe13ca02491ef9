//! Weighted logistic regression by Newton's method.
//!
//! `linfa-logistic` 0.8 takes no sample weights (its loss is `-Σ ln σ(yz) + α/2 ‖w‖²`), and recency needs them. The loss here
//! is the same with a weight a row, so that with equal weights both give the same coefficients; a test holds them together.
//! `α` is `1 / C` of scikit-learn; the intercept is not penalised.

use ndarray::{Array1, Array2, ArrayView1};

/// The numbers of a fit: `z = coefficients · x + intercept`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fit {
    pub(crate) coefficients: Vec<f64>,
    pub(crate) intercept: f64,
}

/// Rows, labels and weights of a fit.
#[derive(Debug)]
pub(crate) struct Problem<'a> {
    pub(crate) rows: &'a Array2<f64>,
    pub(crate) labels: &'a [bool],
    pub(crate) weights: &'a [f64],
    pub(crate) alpha: f64,
}

const STEPS: usize = 50;
const TOLERANCE: f64 = 1e-9;

pub(crate) fn sigmoid(z: f64) -> f64 {
    if z >= 0.0 { 1.0 / (1.0 + (-z).exp()) } else { z.exp() / (1.0 + z.exp()) }
}

/// `ln(1 + exp(z))` without overflow.
fn softplus(z: f64) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

/// Minimises the loss. Always ends: halves a step that does not descend, stops when none does.
pub(crate) fn solve(problem: &Problem<'_>) -> Fit {
    let width = problem.rows.ncols();
    let mut at = Array1::<f64>::zeros(width + 1);
    let mut loss = problem.loss(&at);
    for _ in 0..STEPS {
        let (gradient, hessian) = problem.derivatives(&at);
        let Some(step) = cholesky_solve(hessian, &gradient) else { break };
        let Some((next, next_loss)) = problem.descend(&at, &step, loss) else { break };
        let gain = loss - next_loss;
        (at, loss) = (next, next_loss);
        if gain <= TOLERANCE * loss.abs().max(1.0) {
            break;
        }
    }
    let values = at.to_vec();
    let (coefficients, intercept) = values.split_at(width);
    Fit { coefficients: coefficients.to_vec(), intercept: intercept[0] }
}

impl Problem<'_> {
    fn logits(&self, at: &Array1<f64>) -> Array1<f64> {
        let width = self.rows.ncols();
        self.rows.dot(&at.slice(ndarray::s![..width])) + at[width]
    }

    fn loss(&self, at: &Array1<f64>) -> f64 {
        let width = self.rows.ncols();
        let data: f64 =
            (self.logits(at).iter().zip(self.labels).zip(self.weights)).map(|((z, y), w)| w * softplus(if *y { -z } else { *z })).sum();
        data + self.alpha / 2.0 * at.iter().take(width).map(|c| c * c).sum::<f64>()
    }

    fn derivatives(&self, at: &Array1<f64>) -> (Array1<f64>, Array2<f64>) {
        let width = self.rows.ncols();
        let p = self.logits(at).mapv_into(sigmoid);
        let slope: Array1<f64> = p.iter().zip(self.labels).zip(self.weights).map(|((p, y), w)| w * (p - f64::from(*y))).collect();
        let curve: Array1<f64> = p.iter().zip(self.weights).map(|(p, w)| w * p * (1.0 - p)).collect();
        let scaled = self.rows * &curve.view().insert_axis(ndarray::Axis(1));
        let (inner, border) = (self.rows.t().dot(&scaled), self.rows.t().dot(&curve));
        let mut gradient = Array1::<f64>::zeros(width + 1);
        let mut hessian = Array2::<f64>::zeros((width + 1, width + 1));
        gradient.slice_mut(ndarray::s![..width]).assign(&self.rows.t().dot(&slope));
        hessian.slice_mut(ndarray::s![..width, ..width]).assign(&inner);
        for i in 0..width {
            gradient[i] += self.alpha * at[i];
            hessian[[i, i]] += self.alpha;
            hessian[[i, width]] = border[i];
            hessian[[width, i]] = border[i];
        }
        gradient[width] = slope.sum();
        hessian[[width, width]] = curve.sum() + 1e-9;
        (gradient, hessian)
    }

    fn descend(&self, at: &Array1<f64>, step: &Array1<f64>, loss: f64) -> Option<(Array1<f64>, f64)> {
        let mut scale = 1.0;
        for _ in 0..30 {
            let next = at - &(step * scale);
            let next_loss = self.loss(&next);
            if next_loss < loss {
                return Some((next, next_loss));
            }
            scale /= 2.0;
        }
        None
    }
}

/// Solves `matrix · x = right` for a positive definite matrix; `None` when it is not.
fn cholesky_solve(mut matrix: Array2<f64>, right: &Array1<f64>) -> Option<Array1<f64>> {
    let size = right.len();
    for i in 0..size {
        for j in 0..=i {
            let dot = dot(matrix.row(i), matrix.row(j), j);
            let rest = matrix[[i, j]] - dot;
            if i == j {
                if rest.is_nan() || rest <= 0.0 {
                    return None;
                }
                matrix[[i, i]] = rest.sqrt();
            } else {
                matrix[[i, j]] = rest / matrix[[j, j]];
            }
        }
    }
    let mut x = right.clone();
    for i in 0..size {
        let sum: f64 = (0..i).map(|j| matrix[[i, j]] * x[j]).sum();
        x[i] = (x[i] - sum) / matrix[[i, i]];
    }
    for i in (0..size).rev() {
        let sum: f64 = (i + 1..size).map(|j| matrix[[j, i]] * x[j]).sum();
        x[i] = (x[i] - sum) / matrix[[i, i]];
    }
    Some(x)
}

fn dot(a: ArrayView1<'_, f64>, b: ArrayView1<'_, f64>, len: usize) -> f64 {
    a.iter().zip(b).take(len).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests;
