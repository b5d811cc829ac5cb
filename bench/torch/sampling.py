"""Updates of predictor-corrector samplers in PyTorch: reverse diffusion or Euler-Maruyama, with or without
Langevin steps, as sgm's configurations name them."""

import math


class Update:
    """One update of a batch at time t, the same at every time: corrector steps, then the predictor."""

    def __init__(self, tables, net, t=0.5):
        s, self.net = tables["sde"], net
        sampling = {"predictor": "reverse_diffusion", "corrector": "langevin", "snr": 0.16, "n_steps_each": 1}
        sampling.update(tables.get("sampling", {}))
        self.snr = sampling["snr"]
        self.corrections = sampling["n_steps_each"] if sampling["corrector"] == "langevin" else 0
        n = s["num_scales"]
        if s["name"] == "vesde":
            ratio = s["sigma_max"] / s["sigma_min"]
            self.label, before = s["sigma_min"] * ratio**t, s["sigma_min"] * ratio ** (t - 1 / n)
            self.factor, self.alpha = 1.0, 1.0
            # x + (f - g^2 score) dt with f = 0.
            self.drift, self.noise = self.label**2 - before**2, math.sqrt(self.label**2 - before**2)
            if sampling["predictor"] == "euler_maruyama":
                g = self.label * math.sqrt(2 * math.log(ratio))
                self.drift, self.noise = g * g / n, g / math.sqrt(n)
        else:
            beta = s["beta_min"] + t * (s["beta_max"] - s["beta_min"])
            self.label, self.alpha = t * 999, 1 - beta / n
            self.factor, self.drift, self.noise = 1 + 0.5 * beta / n, beta / n, math.sqrt(beta / n)
            if sampling["predictor"] == "reverse_diffusion":
                self.factor = 2 - math.sqrt(1 - beta / n)
            log_mean = -0.25 * t * t * (s["beta_max"] - s["beta_min"]) - 0.5 * t * s["beta_min"]
            self.std = math.sqrt(-math.expm1(2 * log_mean))
        self.is_ve = s["name"] == "vesde"

    def evaluations(self):
        """Of the network, in one update."""
        return 1 + self.corrections

    def score(self, x):
        labels = x.new_full((x.shape[0],), self.label)
        y = self.net(x, labels).float()
        return y if self.is_ve else y / -self.std

    def __call__(self, x):
        import torch

        for _ in range(self.corrections):
            score, z = self.score(x), torch.randn_like(x)
            norms = z.flatten(1).norm(dim=1) / score.flatten(1).norm(dim=1)
            step = (2 * self.alpha * (self.snr * norms) ** 2)[:, None, None, None]
            x = x + step * score + torch.sqrt(2 * step) * z
        score = self.score(x)
        return self.factor * x + self.drift * score + self.noise * torch.randn_like(x)
