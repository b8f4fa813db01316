"""Settings of every system, as small as its layers allow."""

TINY = {
    "frame_diff": {"block": 8},
    "background": {"image_size": (24, 32)},
    "conv_ae": {"image_size": (27, 35), "frames": 5, "conv": (8, 4, 4), "step": 3},
    "convlstm_ae": {"image_size": (24, 32), "frames": 4, "conv": (4, 4), "lstm": (4,)},
    "latent_lstm": {
        "image_size": (32, 32),
        "frames": 6,
        "warm_up": 2,
        "hidden": 8,
        "front_end": {"name": "vcae", "conv": 2, "dense": 8},
    },
    "pseudo_anomaly": {"frames": 4, "every": 2, "background": 6, "conv": (8, 8, 8)},
    "flow_magnitude": {},
    "box_speed": {"frames": 5},
    "hog_hof_ae": {"image_size": (48, 64), "cell": 8, "frames": 6, "step": 2, "layers": (16, 4)},
    "future_frame": {
        "image_size": (32, 40),
        "conv": (4, 4, 4, 4),
        "discriminator": (4, 4, 4, 4),
        "flow": 0,
        "flownet": None,
    },
}
WITH_FLOW = ("flow_magnitude", "box_speed", "hog_hof_ae", "future_frame")
