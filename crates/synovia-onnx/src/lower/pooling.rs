//! Pooling and resampling of images and signals.

use burn_ir::{InterpolateModeIr, InterpolateOpIr, ModuleOperationIr, OperationIr, TensorIr};

use super::{Lowering, unsupported};
use crate::builder::{float, int, ints, text};
use crate::error::TraceError;
use crate::proto::AttributeProto;

fn window(kernel: &[usize], stride: &[usize], padding: &[usize], ceil: bool) -> Vec<AttributeProto> {
    vec![
        ints("kernel_shape", kernel.iter().copied()),
        ints("strides", stride.iter().copied()),
        ints("pads", padding.iter().chain(padding).copied()),
        int("ceil_mode", ceil.into()),
    ]
}

/// The averages of adaptive pooling as a matrix: row `o` is 1 / length over `⌊o·n/m⌋ .. ⌈(o+1)·n/m⌉`.
fn averages(n_in: usize, n_out: usize) -> Vec<f32> {
    let mut matrix = vec![0.0; n_out * n_in];
    for (row, weights) in matrix.chunks_mut(n_in).enumerate() {
        let (start, end) = (row * n_in / n_out, ((row + 1) * n_in).div_ceil(n_out));
        weights[start..end].fill(1.0 / (end - start) as f32);
    }
    matrix
}

fn transposed(matrix: &[f32], n_columns: usize) -> Vec<f32> {
    (0..n_columns).flat_map(|column| matrix.iter().skip(column).step_by(n_columns).copied()).collect()
}

impl Lowering<'_> {
    pub(super) fn pooling(&mut self, operation: &OperationIr, module: &ModuleOperationIr) -> Result<(), TraceError> {
        use ModuleOperationIr as Op;
        match module {
            Op::MaxPool1d(op) => {
                let mut attributes = window(&[op.kernel_size], &[op.stride], &[op.padding], op.ceil_mode);
                attributes.push(ints("dilations", [op.dilation]));
                self.emit("MaxPool", &[&op.x], attributes, &op.out)
            }
            Op::MaxPool2d(op) => {
                let mut attributes = window(&op.kernel_size, &op.stride, &op.padding, op.ceil_mode);
                attributes.push(ints("dilations", op.dilation));
                self.emit("MaxPool", &[&op.x], attributes, &op.out)
            }
            Op::AvgPool1d(op) => {
                let mut attributes = window(&[op.kernel_size], &[op.stride], &[op.padding], op.ceil_mode);
                attributes.push(int("count_include_pad", op.count_include_pad.into()));
                self.emit("AveragePool", &[&op.x], attributes, &op.out)
            }
            Op::AvgPool2d(op) => {
                let mut attributes = window(&op.kernel_size, &op.stride, &op.padding, op.ceil_mode);
                attributes.push(int("count_include_pad", op.count_include_pad.into()));
                self.emit("AveragePool", &[&op.x], attributes, &op.out)
            }
            Op::AdaptiveAvgPool1d(op) => self.adaptive(operation, &op.x, &[op.output_size], &op.out),
            Op::AdaptiveAvgPool2d(op) => self.adaptive(operation, &op.x, &op.output_size, &op.out),
            Op::AdaptiveAvgPool3d(op) => self.adaptive(operation, &op.x, &op.output_size, &op.out),
            Op::Interpolate(op) => self.interpolate(operation, op),
            _ => unsupported(operation, ""),
        }
    }

    fn adaptive(&mut self, operation: &OperationIr, x: &TensorIr, sizes: &[usize], out: &TensorIr) -> Result<(), TraceError> {
        if sizes.iter().all(|&size| size == 1) {
            return self.emit("GlobalAveragePool", &[x], Vec::new(), out);
        }
        let from = (0..sizes.len()).map(|axis| self.fixed(operation, x, 2 + axis)).collect::<Result<Vec<_>, _>>()?;
        if from.iter().zip(sizes).all(|(from, to)| from % to == 0) {
            let kernel: Vec<usize> = from.iter().zip(sizes).map(|(from, to)| from / to).collect();
            return self.emit("AveragePool", &[x], window(&kernel, &kernel, &vec![0; sizes.len()], false), out);
        }
        // Windows of unequal length: a matrix product a dimension.
        let name = self.read(x)?;
        match (from.as_slice(), sizes) {
            (&[width], &[width_out]) => {
                let columns = self.builder.floats(&[width, width_out], &transposed(&averages(width, width_out), width));
                self.emit_named("MatMul", &[&name, &columns], Vec::new(), out);
                Ok(())
            }
            (&[height, width], &[height_out, width_out]) => {
                let rows = self.builder.floats(&[height_out, height], &averages(height, height_out));
                let columns = self.builder.floats(&[width, width_out], &transposed(&averages(width, width_out), width));
                let narrow = self.builder.node("MatMul", &[&name, &columns], Vec::new());
                self.emit_named("MatMul", &[&rows, &narrow], Vec::new(), out);
                Ok(())
            }
            _ => unsupported(operation, "windows of unequal length in three dimensions"),
        }
    }

    fn interpolate(&mut self, operation: &OperationIr, op: &InterpolateOpIr) -> Result<(), TraceError> {
        let place = if op.options.align_corners { "align_corners" } else { "half_pixel" };
        let attributes = match op.options.mode {
            InterpolateModeIr::Nearest => {
                vec![text("mode", "nearest"), text("coordinate_transformation_mode", "asymmetric"), text("nearest_mode", "floor")]
            }
            InterpolateModeIr::Bilinear => vec![text("mode", "linear"), text("coordinate_transformation_mode", place)],
            InterpolateModeIr::Bicubic => {
                vec![text("mode", "cubic"), text("coordinate_transformation_mode", place), float("cubic_coeff_a", -0.75)]
            }
            InterpolateModeIr::NearestExact | InterpolateModeIr::Lanczos3 => return unsupported(operation, "this mode"),
        };
        let mut attributes = attributes;
        attributes.push(ints("axes", [2, 3]));
        let sizes = self.builder.int64s(&op.output_size.map(|size| size as i64));
        let x = self.read(&op.x)?;
        self.emit_named("Resize", &[&x, "", "", &sizes], attributes, &op.out);
        Ok(())
    }
}
