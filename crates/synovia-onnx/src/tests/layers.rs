//! burn's layers, with their weights.

use burn::nn::attention::{MhaInput, MultiHeadAttentionConfig};
use burn::nn::conv::{Conv1dConfig, Conv2d, Conv2dConfig, Conv3dConfig, ConvTranspose2d, ConvTranspose2dConfig};
use burn::nn::pool::{
    AdaptiveAvgPool1dConfig, AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, AvgPool2d, AvgPool2dConfig, MaxPool1dConfig, MaxPool2d,
    MaxPool2dConfig,
};
use burn::nn::{
    BatchNormConfig, EmbeddingConfig, GroupNorm, GroupNormConfig, InstanceNorm, InstanceNormConfig, LayerNorm, LayerNormConfig, Linear,
    LinearConfig, PaddingConfig1d, PaddingConfig2d, PaddingConfig3d, RmsNorm, RmsNormConfig,
};
use burn::tensor::module::{attention, interpolate};
use burn::tensor::ops::{AttentionModuleOptions, InterpolateMode, InterpolateOptions};
use burn::tensor::{Bool, Device, Int, Tensor};
use synovia_fusion::{apply_state, collect_state};

use super::{Pass, check};

/// A layer with random weights, as it is on the device of the pass.
pub(super) fn layer<M: burn::module::Module>(pass: &Pass<'_>, init: impl Fn(&Device) -> M, trained: &M) -> M {
    apply_state(init(&pass.device()), &collect_state(trained)).unwrap()
}

/// A layer on images of `[batch, channels, height, width]`.
#[track_caller]
fn image<M: burn::module::Module, const D: usize>(
    sizes: [usize; 3],
    init: impl Fn(&Device) -> M,
    forward: impl Fn(&M, Tensor<4>) -> Tensor<D>,
) {
    let trained = init(&Device::flex());
    check(|pass: &mut Pass<'_>| {
        let x = pass.input("x", &sizes);
        let layer = layer(pass, &init, &trained);
        pass.output("y", forward(&layer, x));
    });
}

#[test]
fn convolutions() {
    for (stride, pad, dilation, groups, bias) in [(1, 0, 1, 1, true), (2, 1, 1, 2, false), (1, 2, 2, 4, true)] {
        let config = Conv2dConfig::new([4, 8], [3, 3])
            .with_stride([stride, 1])
            .with_padding(PaddingConfig2d::Explicit(pad, pad + 1, pad, pad + 1))
            .with_dilation([dilation; 2])
            .with_groups(groups)
            .with_bias(bias);
        image([4, 9, 8], |device| config.init(device), Conv2d::forward);
    }
    let config = ConvTranspose2dConfig::new([4, 2], [3, 3]).with_stride([2, 2]).with_padding([1, 1]).with_padding_out([1, 0]);
    image([4, 5, 6], |device| config.init(device), ConvTranspose2d::forward);
    image(
        [4, 5, 6],
        |device| Conv1dConfig::new(4, 3, 3).with_padding(PaddingConfig1d::Same).init(device),
        |layer, x| layer.forward(x.flatten::<3>(2, 3)),
    );
    image(
        [4, 6, 8],
        |device| Conv3dConfig::new([2, 3], [1, 3, 3]).with_padding(PaddingConfig3d::Explicit(0, 1, 1)).init(device),
        |layer, x| {
            let [batch, ..] = x.dims();
            layer.forward(x.reshape([batch, 2, 2, 6, 8]))
        },
    );
}

#[test]
fn pools() {
    for (kernel, stride, pad, dilation, ceil) in [(3, 2, 1, 1, false), (2, 2, 0, 1, true), (3, 1, 0, 2, false)] {
        let config = MaxPool2dConfig::new([kernel, kernel])
            .with_strides([stride, stride])
            .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
            .with_dilation([dilation, dilation])
            .with_ceil_mode(ceil);
        image([2, 9, 7], |_| config.init(), MaxPool2d::forward);
    }
    for (count_include_pad, ceil) in [(true, false), (false, false), (false, true)] {
        let config = AvgPool2dConfig::new([3, 2])
            .with_strides([2, 2])
            .with_padding(PaddingConfig2d::Explicit(1, 0, 1, 0))
            .with_count_include_pad(count_include_pad)
            .with_ceil_mode(ceil);
        image([2, 9, 7], |_| config.init(), AvgPool2d::forward);
    }
    for size in [[1, 1], [3, 2], [4, 5], [9, 8]] {
        image([2, 9, 8], |_| AdaptiveAvgPool2dConfig::new(size).init(), AdaptiveAvgPool2d::forward);
    }
    for size in [1, 4, 5] {
        image([3, 4, 2], |_| AdaptiveAvgPool1dConfig::new(size).init(), |layer, x| layer.forward(x.flatten::<3>(2, 3)));
    }
    image([3, 4, 2], |_| MaxPool1dConfig::new(3).with_stride(2).init(), |layer, x| layer.forward(x.flatten::<3>(2, 3)));
}

#[test]
fn resampling() {
    for (mode, align_corners) in [
        (InterpolateMode::Nearest, false),
        (InterpolateMode::Bilinear, false),
        (InterpolateMode::Bilinear, true),
        (InterpolateMode::Bicubic, true),
    ] {
        for size in [[8, 9], [3, 4]] {
            check(|pass| {
                let x: Tensor<4> = pass.input("x", &[2, 5, 6]);
                let options = InterpolateOptions::new(mode.clone()).with_align_corners(align_corners).with_output_size(size);
                pass.output("y", interpolate(x, options));
            });
        }
    }
}

#[test]
fn normalisations() {
    let trained = {
        let device = Device::flex().autodiff();
        let norm = BatchNormConfig::new(4).init(&device);
        // Running statistics that are not the initial ones.
        norm.forward(Tensor::<2>::from_floats([[1.0, 2.0, 3.0, -4.0], [3.0, 6.0, 2.0, 1.0]], &device));
        norm
    };
    let init = |device: &Device| BatchNormConfig::new(4).init(device);
    check(|pass| {
        let x: Tensor<4> = pass.input("x", &[4, 3, 3]);
        let norm = apply_state(init(&pass.device()), &collect_state(&trained)).unwrap();
        pass.output("y", norm.forward(x));
    });
    check(|pass| {
        let x: Tensor<2> = pass.input("x", &[4]);
        let norm = apply_state(init(&pass.device()), &collect_state(&trained)).unwrap();
        pass.output("y", norm.forward(x));
    });
    image([4, 3, 5], |device| LayerNormConfig::new(5).init(device), LayerNorm::forward);
    image([4, 3, 5], |device| LayerNormConfig::new(5).with_bias(false).init(device), LayerNorm::forward);
    image([4, 3, 5], |device| RmsNormConfig::new(5).init(device), RmsNorm::forward);
    image([4, 3, 5], |device| GroupNormConfig::new(2, 4).init(device), GroupNorm::forward);
    image([4, 3, 5], |device| InstanceNormConfig::new(4).init(device), InstanceNorm::forward);
}

#[test]
fn dense_and_embedding() {
    for bias in [true, false] {
        image([2, 3, 4], |device| LinearConfig::new(4, 5).with_bias(bias).init(device), Linear::forward);
        image([2, 3, 4], |device| LinearConfig::new(24, 5).with_bias(bias).init(device), |layer, x| layer.forward(x.flatten::<2>(1, 3)));
    }
    // Sizes at which burn folds the batch into the rows for some batches only, for all, and for none.
    for (rows, width_out) in [(6, 16), (1, 64), (8, 3)] {
        for bias in [true, false] {
            let init = |device: &Device| LinearConfig::new(4, width_out).with_bias(bias).init(device);
            let trained = init(&Device::flex());
            check(|pass| {
                let x: Tensor<3> = pass.input("x", &[rows, 4]);
                let layer = layer(pass, init, &trained);
                pass.output("y", layer.forward(x));
            });
        }
    }
    let init = |device: &Device| EmbeddingConfig::new(7, 3).init(device);
    let trained = init(&Device::flex());
    check(|pass| {
        let codes: Tensor<2, Int> = pass.input_int("codes", &[4], 7);
        let layer = layer(pass, init, &trained);
        pass.output("y", layer.forward(codes));
    });
}

#[test]
fn attention_of_heads() {
    let init = |device: &Device| MultiHeadAttentionConfig::new(8, 2).with_dropout(0.3).init(device);
    let trained = init(&Device::flex());
    check(|pass| {
        let x: Tensor<3> = pass.input("x", &[5, 8]);
        let pad: Tensor<2> = pass.input("pad", &[5]);
        let layer = layer(pass, init, &trained);
        // The first place stays, so that no row is masked whole.
        let mask = pad.slice_fill([0..pass_batch(&x), 0..1], -1.0).greater_elem(0.0);
        pass.output("y", layer.forward(MhaInput::self_attn(x).mask_pad(mask)).context);
    });
    for (causal, softcap) in [(false, None), (true, None), (true, Some(2.0))] {
        check(|pass| {
            let [query, key, value] = ["query", "key", "value"].map(|name| pass.input::<4>(name, &[2, 3, 4]));
            let mask: Option<Tensor<4, Bool>> = Some(query.clone().matmul(key.clone().transpose()).greater_elem(1.0));
            let options = AttentionModuleOptions { scale: None, softcap, is_causal: causal };
            pass.output("y", attention(query, key, value, mask, None, options));
        });
    }
}

fn pass_batch(x: &Tensor<3>) -> usize {
    x.dims()[0]
}
