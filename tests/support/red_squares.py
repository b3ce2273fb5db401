"""A model without weights, which finds red squares."""

import cv2
import numpy as np
import torch


class RedSquares(torch.nn.Module):
    """A model that finds red squares of at least four pixels, as a trained one finds animals."""

    names = {0: "zebra", 1: "ostrich"}  # noqa: RUF012 -- as Ultralytics' models have it

    def forward(self, pixels, **_):
        """Return boxes and confidences as a YOLO head does."""
        found = torch.zeros(len(pixels), 4 + len(self.names), 64)
        for number, image in enumerate(pixels):
            red = ((image[0] > 0.9) & (image[1] < 0.1)).numpy().astype(np.uint8)
            _, _, boxes, _ = cv2.connectedComponentsWithStats(red)
            seen = [box for box in boxes[1:] if min(box[2:4]) >= 4]
            for place, (left, top, width, height, _) in enumerate(seen):
                about = (left + width / 2, top + height / 2, width, height, 0.9, 0.0)
                found[number, :, place] = torch.tensor(about)
        return found, None
