"""From a loader's batches to a GPU: copied while it works, images decoded there."""

from streampipe.device.feed import DeviceLoader, to_device

__all__ = ["DeviceLoader", "to_device"]
