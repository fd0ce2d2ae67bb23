"""The files that schemathesis sends, which loads this by SCHEMATHESIS_HOOKS: often images, as noise alone ends at the decoder."""

import schemathesis
from hypothesis import strategies

from tests.api.cases import image_file
from tests.serving.predictor_cases import encoded, lesion_image

IMAGES = [image_file(), encoded(lesion_image(1), "PNG"), encoded(lesion_image(2, width=400, height=300)), image_file()[:-200]]

schemathesis.openapi.format("binary", strategies.one_of(strategies.sampled_from(IMAGES), strategies.binary(max_size=300)))
